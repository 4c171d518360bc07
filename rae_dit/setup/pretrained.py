"""Third-party weights for a run: read by name, and refused where the config says otherwise.

A config states every size, so that shapes, shardings and memory are known without any file. What a
file holds is therefore compared with it, field by field, and never silently taken in its place.
"""

from rae_dit.architecture import DDTArchitecture, differences
from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.setup import models
from rae_dit.setup.compute import compute
from rae_dit.weights import huggingface, released
from rae_dit.weights.architecture import ddt_architecture
from rae_dit.weights.header import ddt_facts
from rae_dit.weights.hub import find_encoder
from rae_dit.weights.official import import_ddt

Fields = dict[str, tuple[object, object]]
# Fields of an architecture that no field of a config states.
UNNAMED = ("activation", "eps", "layer_scale", "key_bias")
# Fields that explain the others: named first where several differ.
FIRST = ("family", "patch_size")


def pretrained_encoder(config: Config) -> VisionTransformer:
    """Reads the encoder `encoder.pretrained`: a Hugging Face directory, hub id or reference name.

    Raises:
        WeightsError: its files are missing, damaged or of another kind of model.
        ConfigError: it is not what the section `encoder` says; names the field and both values.
    """
    wanted = config.encoder
    encoder, mean, std = huggingface.read_encoder(
        find_encoder(wanted.pretrained),
        compute(config),
        input_size=wanted.input_size,
        grid=None,
        layers=wanted.layers,
        add_mean=wanted.add_mean,
    )
    found = encoder.architecture
    fields = differences(models.encoder_architecture(config), found)
    if fields.pop("intermediate_size", None):
        fields["mlp_ratio"] = wanted.mlp_ratio, found.intermediate_size / found.hidden_size
    fields |= {"image_mean": (wanted.image_mean, mean), "image_std": (wanted.image_std, std)}
    check("encoder", wanted.pretrained, fields)
    return encoder


def pretrained_decoder(config: Config) -> Decoder:
    """Reads the decoder `decoder.pretrained`: a .pt file, a directory, or a hub id.

    Raises:
        WeightsError: the file is missing, damaged or of another kind of model.
        ConfigError: it is not what the config says; names the field and both values.
    """
    wanted = config.decoder
    decoder = released.read_decoder(
        wanted.pretrained, compute(config), weights=wanted.pretrained_weights
    )
    found = decoder.architecture
    check_latent(config, "decoder", wanted.pretrained, grid=found.grid, channels=found.in_width)
    fields = differences(models.decoder_architecture(config), found)
    if (told := released.told_pixels(wanted.pretrained)) is not None:
        fields["pixels"] = wanted.pixels, told
    check("decoder", wanted.pretrained, fields)
    return decoder


def pretrained_ddt(config: Config, one_time: Config | None = None) -> DDT:
    """Reads the DiT^DH `ddt.pretrained`: an official file, a directory with one, or a hub id.

    Args:
        config: states the sizes.
        one_time: taken in its place if the file's network has one time; None for not.

    Raises:
        WeightsError: the file is missing, damaged or of another kind of model.
        ConfigError: it is not what the config says; names the field and both values.
    """
    source, wanted = config.ddt.pretrained, models.ddt_architecture(config)
    tensors, facts = released.open_ddt(source, config.ddt.pretrained_weights)
    hints = ddt_facts(wanted)
    if not facts and (wanted.base_depth or wanted.conditioning == "adaln"):
        hints["prediction"] = None  # that of the reference's files, which is compared
    found = ddt_architecture(tensors, **{**hints, **facts})
    if one_time is not None and not found.interval_embedding:
        config = one_time
    check_ddt(config, source, found)
    return import_ddt(tensors, models.abstract(models.make_ddt, config))


def check_ddt(config: Config, source: str, found: DDTArchitecture) -> None:
    """Raises ConfigError at the first field in which a file differs from the config."""
    for name, values in differences(models.ddt_architecture(config), found).items():
        match name:
            case "input_size" | "in_channels":
                check_latent(
                    config, "ddt", source, grid=found.input_size, channels=found.in_channels
                )
            case "num_classes":
                check("data", source, {name: values})
            case "prediction":
                check("flow", source, {name: values})
            case _:
                check("ddt", source, {name: values})


def check(section: str, source: str, fields: Fields) -> None:
    """Raises ConfigError at the first field whose values (config, file) differ."""
    different = [name for name, (asked, found) in fields.items() if asked != found]
    for name in sorted(different, key=lambda name: name not in FIRST):
        if name not in UNNAMED:
            asked, found = fields[name]
            raise invalid_value(f"{section}.{name}", asked, f"{found!r}, which {source} has")
    if different:
        raise ConfigError(
            f"{section}.pretrained: got {source!r}, whose norm epsilon or activation is not that "
            f"of the released {section}s; use it through rae_dit.load_rae"
        )


def check_latent(config: Config, section: str, source: str, *, grid: int, channels: int) -> None:
    """Raises ConfigError if weights are for other latents than the config's encoder gives."""
    asked = (models.latent_grid(config), config.encoder.hidden_size)
    if asked != (grid, channels):
        raise ConfigError(
            f"{section}.pretrained: got {source!r}, which is for latents of {grid}x{grid}x"
            f"{channels}; expected {asked[0]}x{asked[0]}x{asked[1]} = (encoder.input_size / "
            "encoder.patch_size)^2 x encoder.hidden_size"
        )
