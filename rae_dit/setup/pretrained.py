"""Weights of others for a run: loaded by name, and refused where the config says otherwise.

A config states every size, so that shapes, shardings and memory are known without any file. What a
file holds is therefore compared with it, field by field, and never silently taken in its place.
"""

import dataclasses

from flax import nnx

from rae_dit.architecture import DDTArchitecture
from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.base import MAE, DINOv2, VisionTransformer
from rae_dit.setup import models
from rae_dit.weights import huggingface, released
from rae_dit.weights.architecture import ddt_architecture
from rae_dit.weights.hub import find_encoder
from rae_dit.weights.official import import_ddt

Fields = dict[str, tuple[object, object]]


def pretrained_encoder(config: Config) -> VisionTransformer:
    """The encoder `encoder.pretrained`: a Hugging Face directory, hub id or reference name.

    Raises:
        WeightsError: its files are missing, damaged or of another kind of model.
        ConfigError: it is not what the section `encoder` says; names the field and both values.
    """
    wanted = config.encoder
    encoder, mean, std = huggingface.read_encoder(
        find_encoder(wanted.pretrained),
        models.compute(config),
        input_size=wanted.input_size,
        grid=None,
    )
    block = encoder.trunk.blocks
    mlp_width = block.mlp.fc1.bias.shape[-1]
    fields: Fields = {
        "family": (wanted.family, family_of(encoder)),
        "patch_size": (wanted.patch_size, encoder.patch_size),
        "hidden_size": (wanted.hidden_size, encoder.hidden_size),
        "depth": (wanted.depth, encoder.trunk.depth),
        "num_heads": (wanted.num_heads, block.attention.num_heads),
        "position_grid": (wanted.position_grid, encoder.position_grid),
        "image_mean": (wanted.image_mean, mean),
        "image_std": (wanted.image_std, std),
    }
    if isinstance(encoder, DINOv2):
        fields["num_registers"] = wanted.num_registers, len(encoder.registers)
    if int(encoder.hidden_size * wanted.mlp_ratio) != mlp_width:
        fields["mlp_ratio"] = wanted.mlp_ratio, mlp_width / encoder.hidden_size
    check("encoder", wanted.pretrained, fields)
    check_structure(
        "encoder", wanted.pretrained, encoder, models.abstract(models.make_encoder, config)
    )
    return encoder


def pretrained_decoder(config: Config) -> Decoder:
    """The decoder `decoder.pretrained`: a .pt file, a directory, or a hub id.

    Raises:
        WeightsError: the file is missing, damaged or of another kind of model.
        ConfigError: it is not what the config says; names the field and both values.
    """
    wanted = config.decoder
    decoder = released.read_decoder(wanted.pretrained, models.compute(config))
    block = decoder.trunk.blocks
    check(
        "decoder",
        wanted.pretrained,
        {
            "patch_size": (wanted.patch_size, decoder.patch_size),
            "hidden_size": (wanted.hidden_size, decoder.hidden_size),
            "depth": (wanted.depth, decoder.trunk.depth),
            "num_heads": (wanted.num_heads, block.attention.num_heads),
            "intermediate_size": (wanted.intermediate_size, block.mlp.fc1.bias.shape[-1]),
        },
    )
    check_latent(config, "decoder", wanted.pretrained, grid=decoder.grid, channels=decoder.in_width)
    check_structure(
        "decoder", wanted.pretrained, decoder, models.abstract(models.make_decoder, config)
    )
    return decoder


def pretrained_ddt(config: Config) -> DDT:
    """The DiT^DH `ddt.pretrained`: an official file, a directory with one, or a hub id.

    Raises:
        WeightsError: the file is missing, damaged or of another kind of model.
        ConfigError: it is not what the config says; names the field and both values.
    """
    source, wanted = config.ddt.pretrained, models.ddt_architecture(config)
    tensors = released.open_ddt(source)
    found = ddt_architecture(
        tensors,
        input_size=wanted.input_size,
        depth=wanted.depth,
        num_heads=wanted.num_heads,
        mlp_ratio=wanted.mlp_ratio,
    )
    check_ddt(config, source, found)
    return import_ddt(tensors, models.abstract(models.make_ddt, config))


def check_ddt(config: Config, source: str, found: DDTArchitecture) -> None:
    """Raises ConfigError at the first field in which a file differs from the config."""
    wanted = models.ddt_architecture(config)
    for field in dataclasses.fields(wanted):
        asked, has = getattr(wanted, field.name), getattr(found, field.name)
        if asked == has:
            continue
        match field.name:
            case "input_size" | "in_channels":
                check_latent(
                    config, "ddt", source, grid=found.input_size, channels=found.in_channels
                )
            case "num_classes":
                check("data", source, {"num_classes": (asked, has)})
            case name:
                check("ddt", source, {name: (asked, has)})


def family_of(encoder: VisionTransformer) -> str:
    """The name of an encoder's family in the config."""
    match encoder:
        case DINOv2():
            return "dinov2"
        case MAE():
            return "mae"
    return "siglip"


def check(section: str, source: str, fields: Fields) -> None:
    """Raises ConfigError at the first field whose values (config, file) differ."""
    for name, (asked, found) in fields.items():
        if asked != found:
            raise invalid_value(f"{section}.{name}", asked, f"{found!r}, which {source} has")


def check_latent(config: Config, section: str, source: str, *, grid: int, channels: int) -> None:
    """Raises ConfigError if weights are for other latents than the config's encoder gives."""
    asked = (models.latent_grid(config), config.encoder.hidden_size)
    if asked != (grid, channels):
        raise ConfigError(
            f"{section}.pretrained: got {source!r}, which is for latents of {grid}x{grid}x"
            f"{channels}; expected {asked[0]}x{asked[0]}x{asked[1]} = (encoder.input_size / "
            "encoder.patch_size)^2 x encoder.hidden_size"
        )


def check_structure(section: str, source: str, module: nnx.Module, expected: nnx.Module) -> None:
    """Raises ConfigError for what no field says: epsilon, activation, spacing of positions."""
    if nnx.graphdef(module) != nnx.graphdef(expected):
        raise ConfigError(
            f"{section}.pretrained: got {source!r}, whose norm epsilon, activation or position "
            f"spacing is not that of the released {section}s; use it through rae_dit.load_rae"
        )
