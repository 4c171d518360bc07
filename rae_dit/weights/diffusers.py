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

from collections.abc import Mapping
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
from rae_dit.weights.config_file import read_fields, read_json, read_triple
from rae_dit.weights.directory import contents, weight_file
from rae_dit.weights.encoder_names import canonical, without_prefix
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.huggingface import check_depth, import_encoder, read_position_grid
from rae_dit.weights.mapping import (
    Tensors,
    build,
    import_tensors,
    parameters_of,
)
from rae_dit.weights.official import decoder_entries
from rae_dit.weights.shapes import shape_of
from rae_dit.weights.tensor_file import open_tensors

ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
STD_EPS = np.float32(1e-5)  # added to latents_std by diffusers
HEAD_WIDTH = 64  # of every encoder that diffusers builds
DECODER_EPS = 1e-12
DECODER_GRID = 16  # over which the decoder's positions are spread
# What diffusers takes for what a config leaves out.
DEFAULTS: dict[str, Any] = {
    "encoder_type": "dinov2",
    "encoder_hidden_size": 768,
    "encoder_patch_size": 14,
    "encoder_num_hidden_layers": 12,
    "encoder_input_size": 224,
    "decoder_num_attention_heads": 16,
    "reshape_to_2d": True,
    "scaling_factor": 1.0,
}
IMAGE_CONSTANTS = {"encoder_norm_mean": IMAGENET_MEAN, "encoder_norm_std": IMAGENET_STD}
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
        raise WeightsError(f"reshape_to_2d: got false; expected true, in {directory}/config.json")
    tensors = open_tensors(weight_file(directory))
    rest = {name for name in tensors if not name.startswith(("encoder.", "decoder."))}
    if rest != BUFFERS:
        raise WeightsError(f"{directory}: got tensors {sorted(rest)}; expected {sorted(BUFFERS)}")
    encoder = import_encoder_part(config, tensors, compute)
    mean, std = config["encoder_norm_mean"], config["encoder_norm_std"]
    for name, value in (("encoder_mean", mean), ("encoder_std", std)):
        stored = tensors[name].reshape(-1)
        if not np.array_equal(stored, np.array(value, np.float32).astype(stored.dtype)):
            raise WeightsError(
                f"{name}: got {stored.tolist()}; expected {value}, as in {directory}/config.json"
            )
    factor = config["scaling_factor"]
    scale = (tensors["_latents_std"].astype(np.float32) + STD_EPS).astype(np.float64) / factor
    return RAE(
        encoder,
        import_decoder_part(config, tensors, encoder.grid, compute),
        image_mean=mean,
        image_std=std,
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
    content = read_json(path) if path.is_file() else {}
    if not is_autoencoder_rae(content):
        what = contents(directory) if directory.is_dir() else "a file"
        raise WeightsError(
            f"{directory}: got {what}; expected a directory with the config.json of an "
            "AutoencoderRAE (encoder_type)"
        )
    config = read_fields(content, DEFAULTS, path)
    for name, value in config.items():
        if not isinstance(value, bool | str) and value <= 0:
            raise WeightsError(f"{name}: got {value}; expected more than 0, in {path}")
    for name, default in IMAGE_CONSTANTS.items():
        found = content.get(name)
        config[name] = default if found is None else read_triple(found, name, path)
    for name, divisor in (
        ("encoder_input_size", config["encoder_patch_size"]),
        ("encoder_hidden_size", HEAD_WIDTH),
    ):
        if config[name] % divisor:
            raise WeightsError(
                f"{name}: got {config[name]}; expected a multiple of {divisor}, in {path}"
            )
    return config


def is_autoencoder_rae(config: Mapping[str, Any]) -> bool:
    """Tells whether a config.json is that of an `AutoencoderRAE`."""
    return config.get("_class_name") == "AutoencoderRAE" or "encoder_type" in config


def import_encoder_part(
    config: dict[str, Any], tensors: Tensors, compute: Compute
) -> VisionTransformer:
    """Reads the encoder: sizes from the config, the rest as diffusers fixes it."""
    family, fixed = family_of(config["encoder_type"])
    names = family.huggingface.tensors
    named = canonical(without_prefix(tensors, "encoder."), names)
    check_depth(named, family, config["encoder_num_hidden_layers"])
    mlp_bias = f"{names.blocks.format(0)}.{names.mlp[0]}.bias"
    architecture = EncoderArchitecture(
        family=family.name,
        input_size=config["encoder_input_size"],
        patch_size=config["encoder_patch_size"],
        position_grid=read_position_grid(family, named),
        num_registers=fixed.num_registers,
        hidden_size=config["encoder_hidden_size"],
        depth=config["encoder_num_hidden_layers"],
        num_heads=config["encoder_hidden_size"] // HEAD_WIDTH,
        intermediate_size=shape_of(named, mlp_bias, family.module.__name__, 1)[0],
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
