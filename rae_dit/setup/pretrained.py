"""Weights of others for a run: loaded by name, and refused where the config says otherwise.

A config states every size, so that shapes, shardings and memory are known without any file. What a
file holds is therefore compared with it, field by field, and never silently taken in its place.
"""

from flax import nnx

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoder import MAE, DINOv2, VisionTransformer
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
    wanted = config.ddt
    tensors = released.open_ddt(wanted.pretrained)
    # A hint where the file is silent: without RoPE and qk-norm it does not tell the heads, without
    # RoPE and positions not the grid, with equal widths not where the head begins.
    heads_told = {"enc_feat_rope.freqs_cos", "blocks.0.attn.q_norm.weight"} & set(tensors)
    grid_told = {"enc_feat_rope.freqs_cos", "pos_embed"} & set(tensors)
    equal_widths = wanted.hidden_size[0] == wanted.hidden_size[1]
    found = ddt_architecture(
        tensors,
        input_size=None if grid_told else models.latent_grid(config),
        depth=wanted.depth if equal_widths else None,
        num_heads=None if heads_told else wanted.num_heads,
    )
    fields: Fields = {
        "patch_size": (wanted.patch_size, found["patch_size"]),
        "hidden_size": (wanted.hidden_size, found["hidden_size"]),
        "depth": (wanted.depth, found["depth"]),
        "num_heads": (wanted.num_heads, found["num_heads"]),
        "use_qknorm": (wanted.use_qknorm, found["use_qknorm"]),
        "use_swiglu": (wanted.use_swiglu, found["use_swiglu"]),
        "use_rope": (wanted.use_rope, found["use_rope"]),
        "use_rmsnorm": (wanted.use_rmsnorm, found["use_rmsnorm"]),
        "use_pos_embed": (wanted.use_pos_embed, found["use_pos_embed"]),
    }
    check("ddt", wanted.pretrained, fields)
    check(
        "data", wanted.pretrained, {"num_classes": (config.data.num_classes, found["num_classes"])}
    )
    grid, channels = found["input_size"], found["in_channels"]
    check_latent(config, "ddt", wanted.pretrained, grid=grid, channels=channels)
    return import_ddt(tensors, models.abstract(models.make_ddt, config))


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
            f"{channels}, expected {asked[0]}x{asked[0]}x{asked[1]} = (encoder.input_size / "
            "encoder.patch_size)^2 x encoder.hidden_size"
        )


def check_structure(section: str, source: str, module: nnx.Module, expected: nnx.Module) -> None:
    """Raises ConfigError for what no field says: epsilon, activation, spacing of positions."""
    if nnx.graphdef(module) != nnx.graphdef(expected):
        raise ConfigError(
            f"{section}.pretrained: got {source!r}, whose norm epsilon, activation or position "
            f"spacing is not that of the released {section}s; use it through rae_dit.load_rae"
        )
