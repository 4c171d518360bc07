"""Our RAE as a diffusers `AutoencoderRAE` directory, bit-equal to the one it came from.

The conventions that differ are described in `diffusers`, which reads such directories.
"""

import json
from pathlib import Path

import numpy as np

from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.base import DINOv2, VisionTransformer
from rae_dit.models.rae import RAE
from rae_dit.weights.architecture import DIFFUSERS_GRID
from rae_dit.weights.diffusers import (
    ATTENTION,
    DECODER_EPS,
    HEAD_WIDTH,
    STD_EPS,
    encoder_type,
)
from rae_dit.weights.encoder_names import encoder_entries
from rae_dit.weights.mapping import WeightsError, export_tensors, parameters_of, under
from rae_dit.weights.official import decoder_entries
from rae_dit.weights.tensor_file import save_tensors


def save_diffusers(rae: RAE, directory: str | Path) -> None:
    """Writes an `AutoencoderRAE` directory that diffusers reads to the same numbers.

    SigLIP's pooling head, which RAE does not keep and diffusers does not use, is written as zeros.

    Raises:
        WeightsError: if diffusers would build something else than this RAE.
    """
    name, decoder = check_expressible(rae)
    encoder = rae.encoder
    prefix = "encoder.vision_model" if name == "siglip2" else "encoder"
    named = under("encoder", prefix, encoder_entries(encoder))
    named += under("decoder", "decoder", decoder_entries(decoder.trunk.depth, attention=ATTENTION))
    parameters = parameters_of(rae)
    mean, scale = np.zeros(1, np.float32), np.ones(1, np.float32)
    if rae.latent_mean is not None:
        mean = np.asarray(parameters.pop("latent_mean")).transpose(2, 0, 1)
        scale = np.asarray(parameters.pop("latent_scale")).transpose(2, 0, 1)
    std = (scale.astype(np.float64) - STD_EPS).astype(np.float32)
    tensors = export_tensors(named, parameters) | {
        "encoder_mean": np.array(rae.image_mean, np.float32).reshape(1, 3, 1, 1),
        "encoder_std": np.array(rae.image_std, np.float32).reshape(1, 3, 1, 1),
        "_latents_mean": mean,
        "_latents_std": std,
    }
    if name == "siglip2":
        tensors |= pooling_head(encoder.hidden_size)
    config = {
        "_class_name": "AutoencoderRAE",
        "_diffusers_version": "0.42.1",
        "decoder_hidden_size": decoder.hidden_size,
        "decoder_intermediate_size": mlp_width(decoder),
        "decoder_num_attention_heads": decoder.trunk.blocks.attention.num_heads,
        "decoder_num_hidden_layers": decoder.trunk.depth,
        "encoder_hidden_size": encoder.hidden_size,
        "encoder_input_size": encoder.input_size,
        "encoder_norm_mean": list(rae.image_mean),
        "encoder_norm_std": list(rae.image_std),
        "encoder_num_hidden_layers": encoder.trunk.depth,
        "encoder_patch_size": encoder.patch_size,
        "encoder_type": name,
        "image_size": decoder.grid * decoder.patch_size,
        "latents_mean": mean.tolist(),
        "latents_std": std.tolist(),
        "noise_tau": 0.0,
        "num_channels": 3,
        "patch_size": decoder.patch_size,
        "reshape_to_2d": True,
        "scaling_factor": 1.0,
        "use_encoder_loss": False,
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_tensors(directory / "diffusion_pytorch_model.safetensors", tensors)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def check_expressible(rae: RAE) -> tuple[str, Decoder]:
    """The `encoder_type` of an RAE, and its decoder, if diffusers can build them.

    Raises:
        WeightsError: naming everything that it would build differently.
    """
    encoder, decoder = rae.encoder, rae.decoder
    if decoder is None:
        raise WeightsError("An AutoencoderRAE has a decoder, and this RAE has none.")
    types = ("dinov2", "siglip2", "mae")
    name = next(name for name in types if isinstance(encoder, encoder_type(name)[0]))
    _, fixed, position_grid = encoder_type(name)
    block = encoder.trunk.blocks
    width = encoder.hidden_size
    wanted = {
        "encoder heads": (block.attention.num_heads, width // HEAD_WIDTH),
        "encoder MLP width": (mlp_width(encoder), 4 * width if name == "dinov2" else 3072),
        "side of the encoder's position table": (encoder.position_grid, position_grid),
        "encoder eps": (encoder.norm.eps, fixed["eps"]),
        "encoder activation": (block.mlp.activation.__name__, fixed["activation"].__name__),
        "decoder eps": (decoder.norm.eps, DECODER_EPS),
        "spacing of the decoder's positions": (
            decoder.position_spacing,
            DIFFUSERS_GRID / decoder.grid,
        ),
    }
    if isinstance(encoder, DINOv2):
        wanted["number of registers"] = (encoder.registers.shape[0], fixed["num_registers"])
    different = [f"{what} {is_}, not {must}" for what, (is_, must) in wanted.items() if is_ != must]
    if different:
        raise WeightsError(
            f"diffusers' AutoencoderRAE fixes what this RAE has otherwise: {'; '.join(different)}. "
            "Export the decoder in the official form instead."
        )
    return name, decoder


def mlp_width(model: VisionTransformer | Decoder) -> int:
    """Hidden width of a model's MLPs."""
    return model.trunk.blocks.mlp.fc1.bias.shape[-1]


def pooling_head(width: int) -> dict[str, np.ndarray]:
    """SigLIP's attention pooling, all zeros: it must be in the file, and is not used."""
    hidden = 3072
    shapes = {
        "probe": (1, 1, width),
        "attention.in_proj_weight": (3 * width, width),
        "attention.in_proj_bias": (3 * width,),
        "attention.out_proj.weight": (width, width),
        "attention.out_proj.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    return {
        f"encoder.vision_model.head.{name}": np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }
