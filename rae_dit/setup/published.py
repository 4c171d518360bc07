"""Models of published directories: their config makes the networks, their files fill them."""

import dataclasses
from pathlib import Path

from flax import nnx

from rae_dit.architecture import Compute
from rae_dit.config import Config
from rae_dit.models.ddt import DDT
from rae_dit.models.rae import RAE
from rae_dit.setup import models
from rae_dit.setup.compute import with_compute
from rae_dit.setup.pretrained import pretrained_encoder
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.mapping import build, parameters_of
from rae_dit.weights.official import import_ddt
from rae_dit.weights.publish import AUTOENCODER, published_file, read_leaves, read_manifest
from rae_dit.weights.publish import DDT as DDT_FILE
from rae_dit.weights.tensor_file import open_tensors
from rae_dit.workdir import read_config

ENCODER = "encoder."

# Fields of a config that name files of a machine.
PATHS = (
    *("data.path", "data.validation_path", "encoder.checkpoint", "decoder.pretrained"),
    *("decoder.checkpoint", "ddt.pretrained", "ddt.checkpoint", "few_step.teacher"),
    *("few_step.guide_checkpoint", "perceptual.vgg", "perceptual.linear", "latents.output"),
    *("discriminator.pretrained", "checkpoint.restore_from", "sample.guide_checkpoint"),
    *("sample.class_list", "sample.class_names", "sample.output_dir", "evaluate.inception"),
    *("evaluate.samples", "evaluate.reference", "evaluate.reference_cache"),
    *("reconstruct.path", "stats.output", "compute.compile_cache", "metrics.wandb_project"),
)


def published_config(config: Config, *, encoder: bool) -> Config:
    """Returns a config for others: without paths of this machine.

    Args:
        config: of a run.
        encoder: whether the encoder's weights are published; else the config goes on naming it.
    """
    for path in PATHS:
        section, name = path.split(".")
        if getattr(getattr(config, section), name) in ("", None):
            continue
        changes: dict[str, str] = {name: ""}
        if name == "guide_checkpoint":
            changes["guidance"] = "cfg"
        if path == "sample.class_list":
            changes["labels"] = ""
        changed = dataclasses.replace(getattr(config, section), **changes)
        config = dataclasses.replace(config, **{section: changed})
    kept = dataclasses.replace(
        config.encoder,
        pretrained="" if encoder else config.encoder.pretrained,
        statistics=AUTOENCODER if config.encoder.statistics else "",
    )
    return dataclasses.replace(config, encoder=kept)


def read_published(directory: Path, compute: Compute | None = None) -> Config:
    """Reads the config of a published directory; raises as `read_config`.

    Args:
        directory: the published one.
        compute: how its networks compute; None for as in training.
    """
    config = read_config(directory)
    return config if compute is None else with_compute(config, compute)


def published_ddt(directory: Path, config: Config) -> DDT:
    """Reads the DiT^DH of a published directory.

    Raises:
        WeightsError: it has none, or it does not fit its config.
    """
    naming = read_manifest(directory).ddt
    if not naming:
        raise WeightsError(f"{directory}: got an autoencoder alone; expected a DiT^DH with it")
    path = published_file(directory, DDT_FILE)
    abstract = models.abstract(models.make_ddt, config)
    match naming:
        case "reference":
            return import_ddt(open_tensors(path), abstract)
        case "own":
            return build(abstract, read_leaves(path, parameters_of(abstract)))
    raise WeightsError(f"{directory}: ddt: got {naming!r}; expected 'reference' or 'own'")


def published_rae(directory: Path, config: Config) -> RAE:
    """Reads the autoencoder of a published directory; an encoder it only names comes from the hub.

    Raises:
        WeightsError: the file does not fit its config, or the encoder cannot be read.
        ConfigError: the encoder is not what the config says.
    """
    abstract = models.abstract(models.make_full_rae, config)
    like = parameters_of(abstract)
    leaves = {}
    if not read_manifest(directory).encoder:
        encoder = parameters_of(pretrained_encoder(config))
        leaves = {f"{ENCODER}{name}": leaf for name, leaf in encoder.items()}
        like = {name: leaf for name, leaf in like.items() if not name.startswith(ENCODER)}
    return build(abstract, leaves | read_leaves(published_file(directory, AUTOENCODER), like))


def autoencoder_leaves(rae: RAE, *, encoder: bool) -> dict[str, nnx.Variable]:
    """Returns the leaves of an autoencoder to publish."""
    leaves = parameters_of(rae)
    return {n: leaf for n, leaf in leaves.items() if encoder or not n.startswith(ENCODER)}
