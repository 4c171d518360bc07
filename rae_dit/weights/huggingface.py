"""Reader of encoders in Hugging Face form: a directory with config.json and weights.

The families of `models.encoders` are read, by the `model_type` of their config; torch is not
needed.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, Literal

from flax import nnx

from rae_dit.architecture import Compute, EncoderArchitecture, Triple
from rae_dit.models.encoders import make_encoder
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.models.encoders.dinov3 import DINOV3
from rae_dit.models.encoders.family import EncoderFamily
from rae_dit.weights.config_file import LARGEST
from rae_dit.weights.dinov3_meta import HuggingFaceNames, is_meta_file, meta_architecture
from rae_dit.weights.directory import weight_file
from rae_dit.weights.encoder_config import image_constants, read_config
from rae_dit.weights.encoder_names import canonical, encoder_entries, with_key_biases
from rae_dit.weights.mapping import Tensors, WeightsError, build, import_tensors, parameters_of
from rae_dit.weights.shapes import shape_of
from rae_dit.weights.tensor_file import open_tensors


def read_encoder(
    directory: Path,
    compute: Compute = Compute(),
    *,
    input_size: int | None,
    grid: int | None,
    layers: tuple[int, ...] = (),
    add_mean: bool = False,
) -> tuple[VisionTransformer, Triple, Triple]:
    """Reads an encoder and the mean and deviation of the images it was trained on.

    Args:
        directory: holds config.json, weights and preprocessor_config.json; or a file of Meta's
            DINOv3.
        compute: how it computes.
        input_size: side of the images it will see; None takes the side that gives `grid`.
        grid: tokens a side, where there is no `input_size`; None takes that of the stored
            position table.
        layers: blocks whose outputs are averaged, as in `EncoderArchitecture`; () takes the last.
        add_mean: as in `EncoderArchitecture`.

    Raises:
        WeightsError: if the model is of no known family, or a tensor is missing, unknown,
            misshapen or not finite.
        ValueError: if patches do not tile the input.
    """
    if directory.is_file():
        return read_encoder_file(
            directory, compute, input_size=input_size, grid=grid, layers=layers, add_mean=add_mean
        )
    family, config = read_config(directory)
    tensors = canonical(open_tensors(weight_file(directory)), family.huggingface.tensors)
    check_depth(tensors, family, config.num_hidden_layers)
    architecture = encoder_architecture(family, config, tensors, input_size=input_size, grid=grid)
    architecture = with_layers(architecture, layers, add_mean=add_mean)
    return import_encoder(tensors, architecture, compute), *image_constants(directory, family)


def read_encoder_file(
    path: Path,
    compute: Compute,
    *,
    input_size: int | None,
    grid: int | None,
    layers: tuple[int, ...],
    add_mean: bool,
) -> tuple[VisionTransformer, Triple, Triple]:
    """Reads an encoder from one of Meta's files of DINOv3, as `read_encoder` does a directory.

    Raises:
        WeightsError: it is another file, or there is neither `input_size` nor `grid`.
    """
    tensors = open_tensors(path)
    if not is_meta_file(tensors):
        raise WeightsError(
            f"encoder: got {path}; expected a directory with config.json and weights, or a file of "
            "Meta's DINOv3"
        )
    patch = shape_of(tensors, "patch_embed.proj.weight", "Meta's DINOv3", 4)[-1]
    side = input_size or (grid or 0) * patch
    if not side:
        raise WeightsError("input_size: got none; expected pixels a side, as DINOv3 has no table")
    architecture = meta_architecture(tensors, input_size=side)
    architecture = with_layers(architecture, layers, add_mean=add_mean)
    encoder = import_encoder(HuggingFaceNames(tensors), architecture, compute)
    return encoder, DINOV3.image_mean, DINOV3.image_std


def with_layers(
    architecture: EncoderArchitecture, layers: tuple[int, ...], *, add_mean: bool
) -> EncoderArchitecture:
    """Sets what is read out of an encoder.

    Raises:
        WeightsError: a layer is not there.
    """
    if any(layer not in range(architecture.depth) for layer in layers):
        raise WeightsError(
            f"layers: got {layers}; expected numbers of the {architecture.depth} blocks, from 0"
        )
    return dataclasses.replace(architecture, layers=layers, add_mean=add_mean)


def check_depth(tensors: Tensors, family: EncoderFamily, depth: int) -> None:
    """Checks the number of blocks in a config against the file.

    Raises:
        WeightsError: they differ.
    """
    pattern = re.escape(family.huggingface.tensors.blocks).replace(r"\{\}", r"(\d+)")
    matches = (re.match(rf"{pattern}\.", name) for name in tensors)
    found = len({match[1] for match in matches if match})
    if found != depth:
        raise WeightsError(f"num_hidden_layers: got {depth}; expected {found}, the file's blocks")


def encoder_architecture(
    family: EncoderFamily,
    config: Any,
    tensors: Tensors,
    *,
    input_size: int | None,
    grid: int | None,
) -> EncoderArchitecture:
    """Reads an architecture off a vision config and canonical tensors.

    Args:
        family: the encoder's family.
        config: the config.
        tensors: the tensors, for the side of the position table.
        input_size: as in `read_encoder`.
        grid: as in `read_encoder`.

    Raises:
        WeightsError: if the config asks for what cannot be built, or there is no position table.
    """
    position_grid = read_position_grid(family, tensors)
    if not input_size and not grid and not position_grid:
        raise WeightsError(
            f"input_size: got none; expected pixels a side, as {family.module.__name__} has no "
            "table of positions to tell it"
        )
    try:
        sizes = family.huggingface.sizes(config)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    if not 1 <= sizes["intermediate_size"] <= LARGEST:
        raise WeightsError(
            f"intermediate_size: got {sizes['intermediate_size']}; expected at least 1"
        )
    return EncoderArchitecture(
        family=family.name,
        input_size=input_size or (grid or position_grid) * config.patch_size,
        patch_size=config.patch_size,
        position_grid=position_grid,
        hidden_size=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        eps=config.layer_norm_eps,
        activation=sizes.pop("activation", None) or read_activation(config.hidden_act),
        layer_scale=family.layer_scale,
        key_bias=family.key_bias,
        **sizes,
    )


def read_position_grid(family: EncoderFamily, tensors: Tensors) -> int:
    """Returns the side of the position table in canonical tensors; 0 for a family without one.

    Raises:
        WeightsError: if there is none.
    """
    names = family.huggingface.tensors
    position = {**names.tokens, **names.tables}.get("position")
    if position is None:
        return 0
    shape = shape_of(tensors, position, f"a {family.module.__name__}")
    patches = shape[-2] - family.num_cls_tokens if len(shape) > 1 else 0
    side = math.isqrt(max(patches, 0))
    if patches < 1 or side * side != patches:
        expected = f"[1, {family.num_cls_tokens} + side^2, width]"
        raise WeightsError(f"{position}: got shape {shape}; expected {expected}")
    return side


def read_activation(name: str) -> Literal["gelu", "gelu_tanh"]:
    """Returns our name of a config's `hidden_act`."""
    match name:
        case "gelu":
            return "gelu"
        case "gelu_pytorch_tanh":
            return "gelu_tanh"
    raise WeightsError(f"hidden_act: got {name!r}; expected 'gelu' or 'gelu_pytorch_tanh'")


def import_encoder(
    tensors: Tensors, architecture: EncoderArchitecture, compute: Compute
) -> VisionTransformer:
    """Builds an encoder from canonical tensors.

    Raises:
        WeightsError: if a tensor is missing, unknown, misshapen or not finite.
    """
    abstract = nnx.eval_shape(lambda: make_encoder(architecture, compute, rngs=nnx.Rngs(0)))
    parameters = import_tensors(
        encoder_entries(abstract),
        tensors if architecture.key_bias else with_key_biases(tensors, architecture),
        parameters_of(abstract),
        what=f"The {type(abstract).__name__} encoder",
        fixed={},
    )
    return build(abstract, parameters)
