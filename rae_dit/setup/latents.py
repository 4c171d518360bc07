"""What cached latents depend on, written beside them and compared before they are trained on."""

import dataclasses
import logging
from typing import Any

from jax.sharding import Mesh

from rae_dit.checkpoint.integrity import tree_checksum
from rae_dit.config import Config
from rae_dit.config.check import invalid_value
from rae_dit.data.latents import StoredLatents
from rae_dit.data.sources import Source
from rae_dit.objectives.base import Tree
from rae_dit.provenance import Provenance
from rae_dit.setup import weights

log = logging.getLogger(__name__)

# Where weights come from; their checksum says what they are.
PLACES = ("pretrained", "checkpoint", "statistics")
STATISTICS = ("latent_mean", "latent_scale")


def identity(config: Config, parameters: Tree) -> dict[str, Any]:
    """Returns what makes latents the same function of an image.

    Args:
        config: of a run.
        parameters: of its RAE without decoder, and with statistics if the config names them.
    """
    encoder = dataclasses.asdict(config.encoder)
    found = {name: parameters[name] for name in STATISTICS if name in parameters}
    return {
        "encoder": {name: value for name, value in encoder.items() if name not in PLACES},
        "encoder_checksum": tree_checksum(parameters["encoder"]),
        "statistics_checksum": tree_checksum(found) if found else None,
        "image_size": config.data.image_size,
        "crop": config.data.crop,
    }


def describe(config: Config, source: Source, parameters: Tree) -> Provenance:
    """Returns everything that cached latents depend on.

    Args:
        config: of the run that makes them.
        source: the images.
        parameters: see `identity`.
    """
    return Provenance.of(
        identity(config, parameters)
        | {
            "source": config.data.source,
            "fingerprint": source.fingerprint,
            "precision": config.precision,
            "places": {name: getattr(config.encoder, name) for name in PLACES},
        }
    )


def check_latents(config: Config, train: Source, validation: Source | None, mesh: Mesh) -> None:
    """Checks that cached latents are those of the config's encoder, statistics and images.

    The encoder is loaded for its checksum, and let go. Other sources have nothing to check.

    Args:
        config: of a run that trains on them.
        train: training records.
        validation: held-out records.
        mesh: the devices.

    Raises:
        ConfigError: they are others, or were made without their mirror images and `data.flip` asks
            for those; one line that names the field.
    """
    named = {"data.path": train, "data.validation_path": validation}
    sources = {name: each for name, each in named.items() if isinstance(each, StoredLatents)}
    if not sources:
        return
    if config.data.flip and not sources["data.path"].manifest.mirrored:
        expected = "False, because the latents were made with data.flip=False: no mirror images"
        raise invalid_value("data.flip", True, expected)
    wanted = Provenance.of(
        identity(config, weights.place_rae(config, mesh, decoder=False).parameters)
    )
    for field, source in sources.items():
        made = source.manifest.provenance
        where = f"{field}: {source.directory} holds other latents"
        remedy = "Train with the settings they were made with, or make others by --mode=latents"
        wanted.require_same(made, where, remedy, partly=True)
        if made["precision"] != config.precision:
            log.info("%s: computed in %s", field, made["precision"])
