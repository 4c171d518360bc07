"""Config -> the records of a split."""

from typing import Literal, overload

from rae_dit.config import Config, ConfigError
from rae_dit.data import readers
from rae_dit.data.files import SourceError
from rae_dit.data.sources import Source


@overload
def open_source(config: Config, split: Literal["train"]) -> Source: ...
@overload
def open_source(config: Config, split: Literal["validation"]) -> Source | None: ...
def open_source(config: Config, split: Literal["train", "validation"]) -> Source | None:
    """Opens the records of a split; None for "validation" if `data.validation_path` is ''.

    Raises:
        ConfigError: the path does not hold what `data.source` expects; says what is there.
    """
    data = config.data
    if split == "train":
        path = data.path
    elif data.validation_path or data.source in ("digits", "synthetic"):
        path = data.validation_path
    else:
        return None
    try:
        return readers.open_source(
            data.source,
            path,
            split=split,
            image_size=data.image_size,
            num_classes=data.num_classes,
            crop=data.crop,
            max_bad_share=data.max_bad_share,
        )
    except SourceError as error:
        field = "data.path" if split == "train" else "data.validation_path"
        raise ConfigError(f"{field}: {error}") from error


def held_out(config: Config) -> Source:
    """Opens the held-out records for a mode that needs them.

    Raises:
        ConfigError: there are none.
    """
    source = open_source(config, "validation")
    if source is None:
        raise ConfigError("data.validation_path: got ''; expected held-out images for this mode")
    return source
