"""Which class each image shows: the classes chosen, by number or by name, and their order."""

import numpy as np

from rae_dit.config import Config, ConfigError, parse_labels
from rae_dit.data.classes import match_names, read_names, stored_names
from rae_dit.data.files import SourceError


def image_labels(config: Config) -> list[int]:
    """The label of each of `sample.num_samples` images.

    "equal" takes the chosen classes in turn, so that their counts differ by one at most; "random"
    draws each image's from `sample.seed`. Either way more images leave the first ones as they are.

    Raises:
        ConfigError: the classes asked for do not exist, or their names are not known.
    """
    classes = np.array(chosen_classes(config))
    count = config.sample.num_samples
    if config.sample.label_mode == "random":
        places = np.random.default_rng(config.sample.seed).random(count) * len(classes)
        return [int(label) for label in classes[places.astype(int)]]
    return [int(label) for label in np.resize(classes, count)]


def chosen_classes(config: Config) -> tuple[int, ...]:
    """The labels that `sample.class_list` or `sample.labels` name; all of them by default.

    Raises:
        ConfigError: see `image_labels`.
    """
    sample = config.sample
    if not sample.class_list:
        return parse_labels(sample.labels, config.data.num_classes)
    try:
        wanted = read_names(sample.class_list)
    except SourceError as error:
        raise ConfigError(f"sample.class_list: {error}") from error
    known = class_names(config)
    if known is None:
        raise ConfigError(
            f"sample.class_names: got '', expected a file of all {config.data.num_classes} names, "
            f"since data.source {config.data.source!r} does not tell them"
        )
    try:
        return match_names(wanted, known)
    except SourceError as error:
        raise ConfigError(f"sample.class_list: {error}") from error


def class_names(config: Config) -> tuple[str, ...] | None:
    """The names of all classes: those of `sample.class_names`, or of the data source.

    Returns:
        `data.num_classes` names; None if nothing tells them.

    Raises:
        ConfigError: the file or the source cannot be read, or has another number of classes.
    """
    data, names = config.data, config.sample.class_names
    field, path = ("sample.class_names", names) if names else ("data.path", data.path)
    if not path and data.source not in ("digits", "synthetic"):
        return None
    try:
        if names:
            found: tuple[str, ...] | None = read_names(names)
        elif data.source == "digits" or data.source == "synthetic":
            found = tuple(str(label) for label in range(data.num_classes))
        else:
            found = stored_names(data.source, path)
    except SourceError as error:
        raise ConfigError(f"{field}: {error}") from error
    if found is not None and len(found) != data.num_classes:
        raise ConfigError(
            f"{field}: got {path!r} with {len(found)} names, expected data.num_classes = "
            f"{data.num_classes} of them"
        )
    return found


def display_names(config: Config) -> list[str]:
    """A short name of each class for pictures: the first synonym, or the number."""
    numbers = [str(label) for label in range(config.data.num_classes)]
    try:
        names = class_names(config)
    except ConfigError:
        if config.sample.class_names:
            raise
        names = None  # the images that a model was trained on need not be where it is used
    return numbers if names is None else [name.partition(",")[0] for name in names]
