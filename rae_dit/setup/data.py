"""Config -> the records of a split."""

import logging
from pathlib import Path
from typing import Literal, overload

import jax

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.data import readers
from rae_dit.data.files import Images, SourceError, changed_here
from rae_dit.data.latents import MANIFEST, checksum_here, open_latents
from rae_dit.data.sources import Source
from rae_dit.multihost import first_error, require_same, share

log = logging.getLogger(__name__)


@overload
def open_source(
    config: Config, split: Literal["train"], listings: Path | None = None
) -> Source: ...
@overload
def open_source(
    config: Config, split: Literal["validation"], listings: Path | None = None
) -> Source | None: ...
def open_source(
    config: Config, split: Literal["train", "validation"], listings: Path | None = None
) -> Source | None:
    """Opens the records of a split and says what was found; process 0 lists them, for all.

    Args:
        config: names the source.
        split: which part of it.
        listings: directory where listings are kept until the data change; None for none.

    Returns:
        The records; None for "validation" if `data.validation_path` is ''.

    Raises:
        ConfigError: the path does not hold what `data.source` expects; says what is there.
    """
    data = config.data
    if data.source == "latents":
        expected = "a source of images; cached latents are for --mode=train alone"
        raise invalid_value("data.source", data.source, expected)
    kind = data.source
    if split == "train":
        path = data.path
    elif data.validation_path or kind in ("digits", "synthetic"):
        path = data.validation_path
    else:
        return None
    field = "data.path" if split == "train" else "data.validation_path"
    try:
        source = share(
            lambda: readers.open_source(
                kind,
                path,
                split=split,
                image_size=data.image_size,
                num_classes=data.num_classes,
                crop=data.crop,
                max_bad_share=data.max_bad_share,
                numeric_classes=data.numeric_classes,
                listings=listings,
            ),
            SourceError,
        )
    except SourceError as error:
        raise ConfigError(f"{field}: {error}") from error
    problem = ""
    if jax.process_count() > 1 and isinstance(source, Images):
        problem = changed_here(source.files.listing)
    if problem := first_error(problem):
        raise ConfigError(f"{field}: {problem}")
    log.info("%s: %s", field if path else data.source, readers.describe(source))
    return source


@overload
def open_examples(
    config: Config, split: Literal["train"], listings: Path | None = None
) -> Source: ...
@overload
def open_examples(
    config: Config, split: Literal["validation"], listings: Path | None = None
) -> Source | None: ...
def open_examples(
    config: Config, split: Literal["train", "validation"], listings: Path | None = None
) -> Source | None:
    """Opens what a run trains on: `open_source`, or cached latents.

    Raises:
        ConfigError: see `open_source`; the latents are unfinished or of other classes.
    """
    data = config.data
    if data.source != "latents":
        return open_source(config, split, listings)
    field = "data.path" if split == "train" else "data.validation_path"
    path = data.path if split == "train" else data.validation_path
    if split == "validation" and not path:
        return None
    try:
        source = share(lambda: open_latents(path, data.num_classes), SourceError)
    except SourceError as error:
        raise ConfigError(f"{field}: {error}") from error
    require_same(lambda: {f"{field}: checksum of {path}/{MANIFEST}": checksum_here(path)})
    manifest = source.manifest
    log.info(
        "%s: latents of %s images of %s classes, %s%s, in %d shards",
        *(field, f"{len(source):,}", f"{source.num_classes:,}", manifest.storage),
        *(" with mirror images" if manifest.mirrored else "", manifest.num_shards),
    )
    return source


def check_same_classes(config: Config, train: Source, validation: Source | None) -> None:
    """Checks that labels mean the same classes in both splits, as far as their names are known.

    Raises:
        ConfigError: they do not; says the first difference.
    """
    if validation is None:
        return
    if difference := readers.class_difference(train, validation):
        raise ConfigError(
            f"data.validation_path: got {config.data.validation_path!r}, where {difference}; "
            f"expected the classes of data.path = {config.data.path!r} in the same order"
        )


def held_out(config: Config) -> Source:
    """Opens the held-out records for a mode that needs them.

    Raises:
        ConfigError: there are none.
    """
    source = open_source(config, "validation")
    if source is None:
        raise ConfigError("data.validation_path: got ''; expected held-out images for this mode")
    return source
