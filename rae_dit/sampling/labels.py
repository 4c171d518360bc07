"""Labels of the images to sample, and names of the classes."""

import numpy as np

from rae_dit.config import Config, ConfigError, parse_labels
from rae_dit.data.class_files import read_lines, read_names, short_name
from rae_dit.data.classes import match_names, stored_names
from rae_dit.data.files import SourceError
from rae_dit.data.latents import Manifest
from rae_dit.storage.places import place


def image_labels(config: Config) -> list[int]:
    """Returns the label of each of `sample.num_samples` images.

    "equal" takes the chosen classes in turn, so that their counts differ by at most one; "random"
    draws each label with `sample.seed`. Either way more images do not change the first labels.

    Raises:
        ConfigError: a chosen class does not exist, or the names of the classes are not known.
    """
    classes = np.array(chosen_classes(config))
    count = config.sample.num_samples
    if config.sample.label_mode == "random":
        places = np.random.default_rng(config.sample.seed).random(count) * len(classes)
        return [int(label) for label in classes[places.astype(int)]]
    return [int(label) for label in np.resize(classes, count)]


def chosen_classes(config: Config) -> tuple[int, ...]:
    """Returns the labels that `sample.class_list` or `sample.labels` choose; by default all.

    Raises:
        ConfigError: see `image_labels`.
    """
    sample = config.sample
    if not sample.class_list:
        return parse_labels(sample.labels, config.data.num_classes)
    try:
        wanted = read_lines(sample.class_list)
    except SourceError as error:
        raise ConfigError(f"sample.class_list: {error}") from error
    known = class_names(config)
    if known is None:
        raise ConfigError(
            f"sample.class_names: got ''; expected a file of all {config.data.num_classes} names, "
            f"because data.source {config.data.source!r} has none"
        )
    try:
        return match_names(wanted, known)
    except SourceError as error:
        raise ConfigError(f"sample.class_list: {error}") from error


def class_names(config: Config) -> tuple[str, ...] | None:
    """Reads the names of all classes, from `sample.class_names` or from the data source.

    Returns:
        `data.num_classes` names, or None if neither has names.

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
        elif data.source == "latents":
            found = Manifest.read(place(path)).classes
        else:
            found = stored_names(data.source, path, numeric_classes=data.numeric_classes)
    except SourceError as error:
        raise ConfigError(f"{field}: {error}") from error
    if found is not None and len(found) != data.num_classes:
        raise ConfigError(
            f"{field}: got {path!r} with {len(found)} names; expected data.num_classes = "
            f"{data.num_classes}"
        )
    return found


def display_names(config: Config) -> list[str]:
    """Returns a short name of each class for figures: the first synonym, else the number."""
    numbers = [str(label) for label in range(config.data.num_classes)]
    try:
        names = class_names(config)
    except ConfigError:
        if config.sample.class_names:
            raise
        names = None  # a model may be used where its training images are not
    return numbers if names is None else [short_name(name) for name in names]
