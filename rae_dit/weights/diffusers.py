"""Reader of diffusers' `AutoencoderRAE` directories, without diffusers.

Three conventions differ from the reference's and are converted here, so that both libraries give
the same numbers from the same directory:

* diffusers divides by `latents_std + 1e-5`, where `latents_std` is sqrt(variance + 1e-5) already;
  RAE's latent_scale takes that sum;
* without statistics it divides by 1 + 1e-5; an RAE without statistics is therefore written with a
  `latents_std` of 1 - 1e-5;
* its files have no positions of the decoder: it computes them, and spreads those of any grid over
  16 x 16, where the reference counts tokens: the same at 256 tokens only.

Source: diffusers 0.42.1 `models/autoencoders/autoencoder_rae.py`, names of transformers 5.
"""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rae_dit.architecture import Compute, DecoderArchitecture, EncoderArchitecture
from rae_dit.models.decoder import Decoder, decoder_positions
from rae_dit.models.encoders import FAMILIES
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.models.encoders.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DiffusersEncoder,
    EncoderFamily,
)
from rae_dit.models.rae import RAE, VARIANCE_EPS
from rae_dit.weights.architecture import decoder_architecture
from rae_dit.weights.directory import weight_file
from rae_dit.weights.encoder_names import canonical, without_prefix
from rae_dit.weights.huggingface import import_encoder, read_position_grid
from rae_dit.weights.mapping import (
    Tensors,
    WeightsError,
    build,
    import_tensors,
    parameters_of,
)
from rae_dit.weights.official import decoder_entries
from rae_dit.weights.tensor_file import open_tensors

ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
STD_EPS = np.float32(1e-5)  # added to latents_std by diffusers
HEAD_WIDTH = 64  # of every encoder that diffusers builds
DECODER_EPS = 1e-12
DECODER_GRID = 16  # over which the decoder's positions are spread
BUFFERS = {"encoder_mean", "encoder_std", "_latents_mean", "_latents_std"}


def family_of(encoder_type: str) -> tuple[EncoderFamily, DiffusersEncoder]:
    """Finds the family of an `encoder_type`, and what diffusers fixes of it.

    Raises:
        WeightsError: if diffusers has no such type.
    """
    known = [(family, family.diffusers) for family in FAMILIES if family.diffusers is not None]
    for family, fixed in known:
        if fixed.encoder_type == encoder_type:
            return family, fixed
    names = ", ".join(repr(fixed.encoder_type) for _, fixed in known)
    raise WeightsError(f"encoder_type: got {encoder_type!r}; expected one of {names}")


def read_diffusers(directory: Path, compute: Compute = Compute()) -> RAE:
    """Reads an `AutoencoderRAE` directory.

    Raises:
        WeightsError: if it is none, or a tensor is missing, unknown, misshapen or not finite.
    """
    config = read_config(directory)
    if not config["reshape_to_2d"]:
        raise WeightsError(f"{directory} keeps its latents in one row (reshape_to_2d is false).")
    tensors = open_tensors(weight_file(directory))
    rest = {name for name in tensors if not name.startswith(("encoder.", "decoder."))}
    if rest != BUFFERS:
        raise WeightsError(f"{directory} holds {sorted(rest)}; expected {sorted(BUFFERS)}.")
    encoder = import_encoder_part(config, tensors, compute)
    mean, std = config["encoder_norm_mean"], config["encoder_norm_std"]
    mean, std = (IMAGENET_MEAN if mean is None else mean, IMAGENET_STD if std is None else std)
    for name, value in (("encoder_mean", mean), ("encoder_std", std)):
        if not np.array_equal(tensors[name].reshape(-1), np.array(value, np.float32)):
            raise WeightsError(f"{name} in {directory} is not what its config.json says: {value}.")
    factor = config["scaling_factor"]
    scale = (tensors["_latents_std"].astype(np.float32) + STD_EPS).astype(np.float64) / factor
    return RAE(
        encoder,
        import_decoder_part(config, tensors, encoder.grid, compute),
        image_mean=tuple(mean),
        image_std=tuple(std),
        latent_mean=channels_last(tensors["_latents_mean"]),
        latent_variance=channels_last(scale**2 - VARIANCE_EPS),
    )


def read_diffusers_decoder(directory: Path, compute: Compute = Compute()) -> Decoder:
    """Reads the decoder alone from an `AutoencoderRAE` directory; raises as `read_diffusers`."""
    config = read_config(directory)
    grid = config["encoder_input_size"] // config["encoder_patch_size"]
    return import_decoder_part(config, open_tensors(weight_file(directory)), grid, compute)


def read_config(directory: Path) -> dict[str, Any]:
    """Reads the config of an `AutoencoderRAE` directory.

    Raises:
        WeightsError: if it is none.
    """
    path = directory / "config.json"
    config: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if "encoder_type" not in config:
        raise WeightsError(f"{directory} is no AutoencoderRAE: no config.json with encoder_type.")
    return config


def import_encoder_part(
    config: dict[str, Any], tensors: Tensors, compute: Compute
) -> VisionTransformer:
    """Reads the encoder: sizes from the config, the rest as diffusers fixes it."""
    family, fixed = family_of(config["encoder_type"])
    names = family.huggingface.tensors
    named = canonical(without_prefix(tensors, "encoder."), names)
    architecture = EncoderArchitecture(
        family=family.name,
        input_size=config["encoder_input_size"],
        patch_size=config["encoder_patch_size"],
        position_grid=read_position_grid(family, named),
        num_registers=fixed.num_registers,
        hidden_size=config["encoder_hidden_size"],
        depth=config["encoder_num_hidden_layers"],
        num_heads=config["encoder_hidden_size"] // HEAD_WIDTH,
        intermediate_size=len(named[f"{names.blocks.format(0)}.{names.mlp[0]}.bias"]),
        activation=family.activation,
        eps=family.eps,
        layer_scale=family.layer_scale,
    )
    return import_encoder(named, architecture, compute)


def import_decoder_part(
    config: dict[str, Any], tensors: Tensors, grid: int, compute: Compute
) -> Decoder:
    """Reads the decoder: sizes from its tensors, heads from the config; computes its positions."""
    decoder = without_prefix(tensors, "decoder.")
    words = {
        "decoder_num_attention_heads": config["decoder_num_attention_heads"],
        "layer_norm_eps": DECODER_EPS,
        "hidden_act": "gelu",
    }
    architecture = decoder_architecture(decoder, words, grid=grid)
    abstract = nnx.eval_shape(lambda: Decoder(architecture, compute, rngs=nnx.Rngs(0)))
    wanted = parameters_of(abstract)
    del wanted["position"]
    parameters = import_tensors(
        decoder_entries(architecture.depth, attention=ATTENTION),
        decoder,
        wanted,
        what="The decoder in the AutoencoderRAE",
        fixed={},
    )
    parameters["position"] = jnp.asarray(computed_positions(architecture))
    return build(abstract, parameters)


def computed_positions(architecture: DecoderArchitecture) -> np.ndarray:
    """Returns the decoder's positions [1+N, D], float32, as diffusers computes them."""
    grid = architecture.grid
    return decoder_positions(architecture.hidden_size, grid, spacing=DECODER_GRID / grid)


def channels_last(statistic: np.ndarray) -> np.ndarray:
    """Transposes [C, h, w] to [h, w, C]; a single number stays one."""
    return statistic if statistic.ndim == 1 else statistic.transpose(1, 2, 0)
