"""Config -> networks: architectures, modules with initial weights, abstract modules.

No default values (they live in configs/) and no mathematics. setup/weights.py fills the networks
with weights from files.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from flax import nnx

from rae_dit.architecture import (
    DDTArchitecture,
    DDTSizes,
    DecoderArchitecture,
    EncoderArchitecture,
)
from rae_dit.config import Config
from rae_dit.diffusion.flow import time_shift
from rae_dit.models import encoders
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.models.layers import Linear
from rae_dit.models.lpips import LPIPS
from rae_dit.models.rae import RAE
from rae_dit.objectives.classification import Classifier, linear_head
from rae_dit.setup.compute import compute, compute_dtype


def matmul_precision(config: Config) -> str:
    """Returns the config's value of `jax.default_matmul_precision`."""
    match config.precision:
        case "fp32":
            return "float32"
        case "tf32":
            return "tensorfloat32"
    return "default"


def latent_grid(config: Config) -> int:
    """Returns the side h = w of the latent."""
    return config.encoder.input_size // config.encoder.patch_size


def latent_shape(config: Config) -> tuple[int, int, int]:
    """Returns (h, w, D) of the encoder's latents."""
    return latent_grid(config), latent_grid(config), config.encoder.hidden_size


def encoder_architecture(config: Config) -> EncoderArchitecture:
    """Returns the encoder that the config describes, with what its family fixes."""
    encoder = config.encoder
    family = encoders.find_family(encoder.family)
    return EncoderArchitecture(
        family=encoder.family,
        input_size=encoder.input_size,
        patch_size=encoder.patch_size,
        position_grid=encoder.position_grid,
        num_registers=encoder.num_registers,
        hidden_size=encoder.hidden_size,
        depth=encoder.depth,
        num_heads=encoder.num_heads,
        intermediate_size=int(encoder.hidden_size * encoder.mlp_ratio),
        activation=family.activation,
        eps=family.eps,
        layer_scale=family.layer_scale,
        key_bias=family.key_bias,
        layers=encoder.layers,
        add_mean=encoder.add_mean,
    )


def decoder_architecture(config: Config) -> DecoderArchitecture:
    """Returns the decoder that the config describes."""
    return DecoderArchitecture(
        in_width=config.encoder.hidden_size,
        grid=latent_grid(config),
        patch_size=config.decoder.patch_size,
        hidden_size=config.decoder.hidden_size,
        depth=config.decoder.depth,
        num_heads=config.decoder.num_heads,
        intermediate_size=config.decoder.intermediate_size,
    )


def make_encoder(config: Config, rngs: nnx.Rngs) -> VisionTransformer:
    """Builds the representation encoder with random weights."""
    return encoders.make_encoder(encoder_architecture(config), compute(config), rngs=rngs)


def make_decoder(config: Config, rngs: nnx.Rngs) -> Decoder:
    """Builds the ViT decoder with random weights."""
    return Decoder(
        decoder_architecture(config),
        compute(config),
        train_constants=config.decoder.train_constants,
        rngs=rngs,
    )


def make_rae(config: Config, rngs: nnx.Rngs, *, decoder: bool, statistics: bool) -> RAE:
    """Builds an RAE with random weights; latent statistics, if asked for, are zeros and ones."""
    grid = latent_grid(config)
    shape = (grid, grid, config.encoder.hidden_size)
    return RAE(
        make_encoder(config, rngs),
        make_decoder(config, rngs) if decoder else None,
        image_mean=config.encoder.image_mean,
        image_std=config.encoder.image_std,
        latent_mean=np.zeros(shape) if statistics else None,
        latent_variance=np.ones(shape) if statistics else None,
        pixels=config.decoder.pixels,
    )


def make_classifier(config: Config, rngs: nnx.Rngs) -> Classifier:
    """Builds encoder and linear head with random weights."""
    rae = make_rae(config, rngs, decoder=False, statistics=False)
    return Classifier(rae, config.data.num_classes, rngs=rngs)


def make_head(config: Config, rngs: nnx.Rngs) -> Linear:
    """Builds the linear layer of a probe with random weights."""
    return linear_head(config.encoder.hidden_size, config.data.num_classes, rngs=rngs)


def make_lpips(config: Config, rngs: nnx.Rngs) -> LPIPS:
    """Builds LPIPS with random weights."""
    return LPIPS(dtype=compute_dtype(config), rngs=rngs)


def ddt_architecture(config: Config) -> DDTArchitecture:
    """Returns the architecture of the config's DiT^DH."""
    sizes = {field.name: getattr(config.ddt, field.name) for field in dataclasses.fields(DDTSizes)}
    return DDTArchitecture(
        input_size=latent_grid(config),
        in_channels=config.encoder.hidden_size,
        num_classes=config.data.num_classes,
        prediction=config.flow.prediction,
        **sizes,
    )


def make_ddt(config: Config, rngs: nnx.Rngs) -> DDT:
    """Builds the DiT^DH with initial weights."""
    return DDT(
        ddt_architecture(config),
        compute(config),
        train_constants=config.ddt.train_constants,
        rngs=rngs,
    )


ModuleT = TypeVar("ModuleT", bound=nnx.Module)


def abstract(make: Callable[[Config, nnx.Rngs], ModuleT], config: Config) -> ModuleT:
    """Returns the module with shapes in place of arrays: no memory, no compile.

    A network is traced once per process and copied for each caller, so that one caller's changes
    are not seen by another.
    """
    return nnx.merge(*traced(make, config), copy=True)


@functools.lru_cache(maxsize=64)
def traced(
    make: Callable[[Config, nnx.Rngs], nnx.Module], config: Config
) -> tuple[nnx.GraphDef, nnx.State]:
    """Traces a constructor; for `abstract` alone, which copies what it returns."""
    return nnx.split(nnx.eval_shape(lambda: make(config, nnx.Rngs(0))))


def latent_shift(config: Config) -> float:
    """Returns the time shift s: `flow.shift`, or computed from the size of a latent."""
    if config.flow.shift is not None:
        return config.flow.shift
    return time_shift(latent_grid(config) ** 2 * config.encoder.hidden_size, config.flow.shift_base)


def rae_graph(config: Config, *, decoder: bool) -> nnx.GraphDef:
    """Returns the structure of the RAE that `place_rae` fills."""
    return nnx.graphdef(abstract(make_full_rae if decoder else make_encoding_rae, config))


def make_full_rae(config: Config, rngs: nnx.Rngs) -> RAE:
    """Builds the RAE with decoder, and with statistics if the config names them."""
    return make_rae(config, rngs, decoder=True, statistics=bool(config.encoder.statistics))


def make_encoding_rae(config: Config, rngs: nnx.Rngs) -> RAE:
    """Builds the RAE without decoder, and with statistics if the config names them."""
    return make_rae(config, rngs, decoder=False, statistics=bool(config.encoder.statistics))
