"""Config -> the records of a split."""

from typing import Literal, overload

from rae_dit.config import Config, ConfigError
from rae_dit.data import sources
from rae_dit.data.files import SourceError
from rae_dit.data.readers import open_images
from rae_dit.data.sources import Source

SYNTHETIC_IMAGES = 1024


@overload
def open_source(config: Config, split: Literal["train"]) -> Source: ...
@overload
def open_source(config: Config, split: Literal["validation"]) -> Source | None: ...
def open_source(config: Config, split: Literal["train", "validation"]) -> Source | None:
    """The records of a split; None for "validation" if `data.validation_path` is ''.

    Raises:
      ConfigError: the path does not hold what `data.source` expects; says what is there.
    """
    data = config.data
    match data.source:
        case "digits":
            return sources.digits(split, data.image_size)
        case "synthetic":
            seed = 0 if split == "train" else 1
            return sources.synthetic(data.image_size, data.num_classes, SYNTHETIC_IMAGES, seed)
        case _ if split == "validation" and not data.validation_path:
            return None
        case kind:
            is_train = split == "train"
            try:
                return open_images(
                    kind,
                    data.path if is_train else data.validation_path,
                    split=split,
                    image_size=data.image_size,
                    num_classes=data.num_classes,
                    crop=data.crop,
                    max_bad_share=data.max_bad_share,
                )
            except SourceError as error:
                field = "data.path" if is_train else "data.validation_path"
                raise ConfigError(f"{field}: {error}") from error


def held_out(config: Config) -> Source:
    """The records of "validation", for a mode that cannot do without.

    Raises:
      ConfigError: there are none.
    """
    source = open_source(config, "validation")
    if source is None:
        raise ConfigError("data.validation_path: got ''; expected held-out images for this mode")
    return source
