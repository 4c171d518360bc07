"""Writer of diffusers `AutoencoderRAE` directories, bit-equal to the one an RAE was read from.

The conventions that differ are described in `diffusers`, which reads such directories.
"""

import dataclasses
from pathlib import Path

import numpy as np

from rae_dit.architecture import differences
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders import find_family
from rae_dit.models.encoders.family import DiffusersEncoder
from rae_dit.models.rae import RAE
from rae_dit.storage.files import write_json
from rae_dit.storage.places import place
from rae_dit.weights.config_file import refuse_other
from rae_dit.weights.diffusers import (
    ATTENTION,
    DECODER_EPS,
    HEAD_WIDTH,
    STD_EPS,
    computed_positions,
)
from rae_dit.weights.encoder_names import encoder_entries
from rae_dit.weights.mapping import WeightsError, export_tensors, parameters_of, under
from rae_dit.weights.official import decoder_entries
from rae_dit.weights.tensor_file import save_tensors

POSITION_TOLERANCE = 1e-6


def save_diffusers(rae: RAE, directory: str | Path) -> None:
    """Writes an `AutoencoderRAE` directory that diffusers reads to the same numbers.

    Tensors that diffusers demands and does not use (SigLIP's pooling head) are written as zeros.

    Raises:
        WeightsError: if diffusers would build a different RAE, or the directory has a config.json
            of something else.
    """
    fixed, decoder = check_expressible(rae)
    encoder, sizes = rae.encoder.architecture, decoder.architecture
    prefix = f"encoder.{fixed.tower}" if fixed.tower else "encoder"
    named = under("encoder", prefix, encoder_entries(rae.encoder))
    named += under("decoder", "decoder", decoder_entries(sizes.depth, attention=ATTENTION))
    parameters = parameters_of(rae)
    del parameters["decoder.position"]  # that diffusers computes, as was checked
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
    for name, shape in fixed.unused_shapes(encoder.hidden_size).items():
        tensors[f"{prefix}.{name}"] = np.zeros(shape, np.float32)
    config = {
        "_class_name": "AutoencoderRAE",
        "_diffusers_version": "0.42.1",
        "decoder_hidden_size": sizes.hidden_size,
        "decoder_intermediate_size": sizes.intermediate_size,
        "decoder_num_attention_heads": sizes.num_heads,
        "decoder_num_hidden_layers": sizes.depth,
        "encoder_hidden_size": encoder.hidden_size,
        "encoder_input_size": encoder.input_size,
        "encoder_norm_mean": list(rae.image_mean),
        "encoder_norm_std": list(rae.image_std),
        "encoder_num_hidden_layers": encoder.depth,
        "encoder_patch_size": encoder.patch_size,
        "encoder_type": fixed.encoder_type,
        "image_size": sizes.grid * sizes.patch_size,
        "latents_mean": mean.tolist(),
        "latents_std": std.tolist(),
        "noise_tau": 0.0,
        "num_channels": 3,
        "patch_size": sizes.patch_size,
        "reshape_to_2d": True,
        "scaling_factor": 1.0,
        "use_encoder_loss": False,
    }
    directory = place(directory)
    refuse_other(directory / "config.json", config)
    save_tensors(directory / "diffusion_pytorch_model.safetensors", tensors)
    write_json(directory / "config.json", config)


def check_expressible(rae: RAE) -> tuple[DiffusersEncoder, Decoder]:
    """Returns how diffusers keeps an RAE's encoder, and the decoder, if it can build them.

    Raises:
        WeightsError: naming everything that it would build differently.
    """
    encoder, decoder = rae.encoder.architecture, rae.decoder
    if decoder is None:
        raise WeightsError(
            "decoder: got an RAE without one; expected one, as an AutoencoderRAE has"
        )
    family = find_family(encoder.family)
    fixed = family.diffusers
    if fixed is None:
        raise WeightsError(
            f"encoder: got {encoder.family!r}; expected a family that diffusers knows"
        )
    built = dataclasses.replace(
        encoder,
        num_heads=encoder.hidden_size // HEAD_WIDTH,
        intermediate_size=fixed.intermediate_size(encoder.hidden_size),
        position_grid=fixed.position_grid,
        num_registers=fixed.num_registers,
        eps=family.eps,
        activation=family.activation,
        layer_scale=family.layer_scale,
        layers=(),
        add_mean=False,
    )
    built_decoder = dataclasses.replace(decoder.architecture, eps=DECODER_EPS)
    fields = {
        "encoder": differences(encoder, built),
        "decoder": differences(decoder.architecture, built_decoder),
    }
    different = [
        f"{part}.{name}: got {found}; expected {needed}"
        for part, values in fields.items()
        for name, (found, needed) in values.items()
    ]
    if rae.pixels != "normalized":
        different.append(f"decoder.pixels: got {rae.pixels!r}; expected 'normalized'")
    computed = computed_positions(decoder.architecture)
    apart = np.abs(np.asarray(decoder.position[...]) - computed).max()
    if apart > POSITION_TOLERANCE:
        different.append(
            f"decoder.position: got values up to {apart:.2g} from those that diffusers computes; "
            f"expected at most {POSITION_TOLERANCE:g}"
        )
    if different:
        raise WeightsError(
            f"{', '.join(different)}, as diffusers' AutoencoderRAE would build a different RAE; "
            "export the decoder in the official form instead"
        )
    return fixed, decoder
