"""Encoders as Hugging Face keeps them: directories with config.json and safetensors, or hub ids.

Three families are read, by the `model_type` of their config; torch is not needed.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flax import nnx
from jax import Array

from rae_dit.architecture import Compute
from rae_dit.models.encoders.base import MAE, DINOv2, SigLIP, VisionTransformer
from rae_dit.models.layers import compute_dtype, gelu_exact, gelu_tanh
from rae_dit.models.rae import Triple
from rae_dit.weights.encoder_names import canonical, encoder_entries, position_names
from rae_dit.weights.mapping import Tensors, WeightsError, build, import_tensors, parameters_of
from rae_dit.weights.tensor_file import open_tensors

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
)


def read_encoder(
    directory: Path,
    compute: Compute = Compute(),
    *,
    input_size: int | None,
    grid: int | None,
) -> tuple[VisionTransformer, Triple, Triple]:
    """Reads an encoder and the mean and deviation of the images it was trained on.

    Args:
        directory: holds config.json, weights and preprocessor_config.json.
        compute: how it computes.
        input_size: side of the images it will see; None takes the side that gives `grid`.
        grid: tokens a side, where there is no `input_size`; None takes that of the stored
            position table.

    Raises:
        WeightsError: if the family is not one of the three, or a tensor is missing, unknown,
            misshapen or not finite.
        ValueError: if patches do not tile the input.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    if config.model_type == "siglip":
        config = config.vision_config
    family, architecture = encoder_architecture(config)
    if input_size is None and grid is not None:
        input_size = grid * config.patch_size
    tensors = canonical(open_tensors(weight_file(directory)), family)
    encoder = import_encoder(family, tensors, architecture, compute, input_size=input_size)
    return encoder, *image_constants(directory, family)


def encoder_architecture(config: Any) -> tuple[type[VisionTransformer], dict[str, Any]]:
    """The family of a `transformers` vision config, and its sizes in our words."""
    sizes = {
        "patch_size": config.patch_size,
        "hidden_size": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "eps": config.layer_norm_eps,
        "activation": activation_of(config.hidden_act),
    }
    match config.model_type:
        case "dinov2_with_registers":
            if config.use_swiglu_ffn:
                raise WeightsError("DINOv2 with SwiGLU (the giant size) is not supported.")
            sizes["intermediate_size"] = config.hidden_size * config.mlp_ratio
            sizes["num_registers"] = config.num_register_tokens
            return DINOv2, sizes
        case "siglip_vision_model":
            return SigLIP, sizes | {"intermediate_size": config.intermediate_size}
        case "vit_mae":
            return MAE, sizes | {"intermediate_size": config.intermediate_size}
        case "dinov2":
            raise WeightsError(
                "The encoder is DINOv2 without registers; RAE uses the one with them, such as "
                "facebook/dinov2-with-registers-base."
            )
    raise WeightsError(
        f"The encoder's model_type is {config.model_type!r}; expected dinov2_with_registers, "
        "siglip, siglip_vision_model or vit_mae."
    )


def activation_of(name: str) -> Callable[[Array], Array]:
    """The function behind a config's `hidden_act`."""
    match name:
        case "gelu":
            return gelu_exact
        case "gelu_pytorch_tanh":
            return gelu_tanh
    raise WeightsError(f"hidden_act is {name!r}; expected 'gelu' or 'gelu_pytorch_tanh'.")


def import_encoder(
    family: type[VisionTransformer],
    tensors: Tensors,
    architecture: Mapping[str, Any],
    compute: Compute,
    *,
    input_size: int | None,
) -> VisionTransformer:
    """Builds an encoder from canonical tensors; the side of the position table is theirs."""
    names, extra = position_names(family)
    if names not in tensors:
        raise WeightsError(f"This is not {family.__name__}: {names} is missing.")
    position_grid = round((tensors[names].shape[-2] - extra) ** 0.5)
    patch_size = architecture["patch_size"]

    def make() -> VisionTransformer:
        return family(
            **architecture,
            **as_keywords(compute),
            input_size=input_size or position_grid * patch_size,
            position_grid=position_grid,
            rngs=nnx.Rngs(0),
        )

    abstract = nnx.eval_shape(make)
    parameters = import_tensors(
        encoder_entries(abstract),
        tensors,
        parameters_of(abstract),
        what=f"The {family.__name__} encoder",
        fixed={},
    )
    return build(abstract, parameters)


def as_keywords(compute: Compute) -> dict[str, Any]:
    """Arguments of the encoders and the decoder until they take a `Compute` themselves."""
    return {
        "attention": compute.attention,
        "scan_layers": compute.scan_layers,
        "remat": compute.remat,
        "dtype": compute_dtype(compute),
    }


def image_constants(directory: Path, family: type[VisionTransformer]) -> tuple[Triple, Triple]:
    """Mean and deviation of the images, from preprocessor_config.json or as published."""
    path = directory / "preprocessor_config.json"
    if path.exists():
        content = json.loads(path.read_text())
        return tuple(content["image_mean"]), tuple(content["image_std"])
    print(f"{path} is missing; using the constants published for {family.__name__}.")
    if family is SigLIP:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weight_file(directory: Path) -> Path:
    """The file of weights in a directory.

    Raises:
        WeightsError: if there is none.
    """
    for name in WEIGHT_FILES:
        if (directory / name).exists():
            return directory / name
    raise WeightsError(f"{directory} holds no weights; expected one of {', '.join(WEIGHT_FILES)}.")
