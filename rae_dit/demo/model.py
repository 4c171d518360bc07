"""A model of the demo page: a run of ours, or weights from files, with all that it needs."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from rae_dit.api import load_ddt, load_rae
from rae_dit.config import Config, ConfigError
from rae_dit.config.check import convert, invalid_value
from rae_dit.config.modes import SampleConfig
from rae_dit.data.class_files import read_names, short_name
from rae_dit.data.files import SourceError
from rae_dit.demo.parts import RAEV2, RELEASED, Parts, check_raev2
from rae_dit.diffusion.flow import time_shift
from rae_dit.models.rae import RAE
from rae_dit.sampling.generate import Generator
from rae_dit.sampling.labels import display_names
from rae_dit.setup import models
from rae_dit.setup.published import published_ddt, published_rae, read_published
from rae_dit.setup.sampling import load_generator
from rae_dit.setup.trained import one_device, rae_of_run
from rae_dit.storage.places import place
from rae_dit.weights.publish import find_published, read_manifest
from rae_dit.workdir import find_run, read_config


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model, and what the page has to know of it.

    Attributes:
        source: names it on the command line: a step of a run, or what the user gave.
        generator: makes images; None for a run of stage 1.
        rae: encodes and decodes.
        sample: sampler settings of its config, which the page starts from.
        shift: time shift.
        precision: for `jax.default_matmul_precision`; None leaves JAX's.
        class_names: name of each class, in the order of the labels.
    """

    source: str
    generator: Generator | None
    rae: RAE
    sample: SampleConfig
    shift: float
    precision: str | None
    class_names: tuple[str, ...]

    @property
    def guidance_kinds(self) -> list[str]:
        """Kinds of guidance that it has the networks for."""
        if self.generator is None:
            return ["none"]
        guided = ["autoguidance"] if self.generator.guide is not None else []
        internal = ["internal"] if self.generator.ddt.architecture.base_depth else []
        return ["none", "cfg", *guided, *internal]

    @property
    def image_size(self) -> int:
        """Side in pixels of what its decoder makes."""
        assert self.rae.decoder is not None  # of what `Catalog` loads
        sizes = self.rae.decoder.architecture
        return sizes.grid * sizes.patch_size


def changed(sample: SampleConfig, changes: dict[str, Any]) -> SampleConfig:
    """Returns settings with some changed, all checked.

    Raises:
        ConfigError: a value is not allowed, or does not go with the others.
    """
    found: SampleConfig = convert(SampleConfig, dataclasses.asdict(sample) | changes, "sample")
    return found


def load_model(source: str, parts: Parts) -> Model:
    """Loads a model; raises as `Catalog.load`."""
    run = find_run(source)
    if run is not None:
        return load_run(source, run, parts)
    published = None if parts.encoder else find_published(source)
    return load_files(source, parts) if published is None else load_published(source, published)


def load_run(source: str, run: Path, parts: Parts) -> Model:
    """Loads a step of a run, with the autoencoder that its config names."""
    config = with_parts(read_config(run), parts)
    precision = models.matmul_precision(config)
    with jax.default_matmul_precision(precision):
        if config.trained_network == "ddt":
            named = place(source).name
            step = int(named) if named.isdigit() else None
            generator = load_generator(config, run, step)
            rae = generator.rae
        else:
            generator, rae = None, rae_of_run(config, place(source))
    names = tuple(display_names(config))
    shift = models.latent_shift(config)
    return Model(source, generator, rae, config.sample, shift, precision, names)


def load_published(source: str, directory: Path) -> Model:
    """Loads a published model, which comes with its autoencoder and its config."""
    config, manifest = read_published(directory), read_manifest(directory)
    precision = models.matmul_precision(config)
    with jax.default_matmul_precision(precision):
        rae = published_rae(directory, config)
        mesh = one_device()
        generator = Generator(published_ddt(directory, config), rae, mesh) if manifest.ddt else None
    shift = models.latent_shift(config)
    return Model(source, generator, rae, config.sample, shift, precision, manifest.class_names)


def with_parts(config: Config, parts: Parts) -> Config:
    """Returns the config of a run with the guide and the names of classes that are given."""
    changes: dict[str, str] = {}
    if parts.class_names:
        changes["class_names"] = parts.class_names
    if parts.guide:
        changes |= {"guide_checkpoint": parts.guide, "guidance": "autoguidance"}
    return dataclasses.replace(config, sample=changed(config.sample, changes))


def load_files(source: str, parts: Parts) -> Model:
    """Loads a DiT^DH and its autoencoder from files or the hub."""
    if not parts.encoder:
        whole = load_rae(source) if place(source).is_dir() else None
        if whole is None:
            raise ConfigError(
                "--encoder: missing; expected the encoder, and with --decoder and --stats the rest "
                f"of the autoencoder, because {source} is no run"
            )
        rae = whole
    else:
        rae = load_rae(
            encoder=parts.encoder,
            decoder=parts.decoder or None,
            stats=parts.stats or None,
            encoder_input_size=parts.encoder_input_size,
            encoder_layers=parts.encoder_layers,
            encoder_add_mean=parts.encoder_add_mean,
            decoder_pixels=parts.decoder_pixels,
        )
    if rae.decoder is None:
        raise ConfigError("--decoder: missing; expected the decoder that makes images of latents")
    ddt = load_ddt(source)
    raev2 = ddt.architecture.conditioning == "tokens"
    if raev2 and parts.encoder:
        check_raev2(parts)
    guide = load_ddt(parts.guide) if parts.guide else None
    side = ddt.architecture.input_size
    latent = (side, side, ddt.in_channels)
    if latent != rae.latent_shape:
        raise invalid_value("--encoder", parts.encoder, f"one with latents {latent} (h, w, C)")
    changes = {**RAEV2} if raev2 else {}
    if guide:
        changes |= {"guide_checkpoint": parts.guide, "guidance": "autoguidance"}
    sample = changed(RELEASED, changes)
    shift = time_shift(side * side * ddt.in_channels)
    names = read_class_names(parts.class_names, ddt.null_label)
    return Model(source, Generator(ddt, rae, one_device(), guide), rae, sample, shift, None, names)


def read_class_names(path: str, num_classes: int) -> tuple[str, ...]:
    """Reads a short name for each class; their numbers where there is no file.

    Raises:
        ConfigError: the file cannot be read, or has another number of classes.
    """
    if not path:
        return tuple(map(str, range(num_classes)))
    try:
        names = read_names(path)
    except SourceError as error:
        raise ConfigError(f"--class-names: {error}") from error
    if len(names) != num_classes:
        raise invalid_value("--class-names", path, f"names of {num_classes} classes")
    return tuple(map(short_name, names))


def state_of(rae: RAE) -> tuple[nnx.GraphDef, nnx.State]:
    """Splits an autoencoder for `sampling.codec`."""
    graph, state = nnx.split(rae)
    return graph, state
