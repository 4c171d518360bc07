"""Config -> feature extractor, reference statistics and metric values of generated images.

`score` is the one way from a model to metric values: modes 'evaluate' and 'sweep' and the
evaluation during training all call it. docs/evaluation.md describes the metrics.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.data.files import SourceError
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.digits import SIDE as DIGIT_SIDE
from rae_dit.evaluation.digits import DigitClassifier
from rae_dit.evaluation.feature_extractors import (
    DigitFeatures,
    FeatureExtractor,
    InceptionExtractor,
)
from rae_dit.evaluation.metrics import metrics_named
from rae_dit.evaluation.pipeline import (
    Batch,
    as_config_error,
    evaluate_batches,
    followed,
    regrouped,
)
from rae_dit.evaluation.references import open_reference
from rae_dit.evaluation.stored import StoredImages, open_stored
from rae_dit.multihost import require_same, share
from rae_dit.provenance import file_hash
from rae_dit.sampling.generate import Generator, generate_shares
from rae_dit.sampling.labels import image_labels
from rae_dit.setup import data, models
from rae_dit.setup.references import comparing, make_reference
from rae_dit.setup.sampling import generation_settings
from rae_dit.storage.files import first_unwritable
from rae_dit.storage.places import place
from rae_dit.storage.reading import local_copy
from rae_dit.weights.inception import read_inception


def during_training(config: Config) -> Config:
    """Returns the config of the evaluation that a training run makes of its own samples."""
    count = config.metrics.evaluate_samples
    settings = dataclasses.replace(config.evaluate, num_samples=count, samples="")
    return with_batch_size(dataclasses.replace(config, evaluate=settings))


def with_batch_size(config: Config) -> Config:
    """Returns the config with `evaluate.sample_batch_size`, if it is given, as `sample`'s own."""
    size = config.evaluate.sample_batch_size
    if size is None:
        return config
    return dataclasses.replace(config, sample=dataclasses.replace(config.sample, batch_size=size))


def check_evaluation(config: Config, stored: StoredImages | None = None) -> Config:
    """Checks files, image sizes and counts before anything is computed.

    Args:
        config: of the evaluation.
        stored: the images of `evaluate.samples`; None where images are generated.

    Returns:
        The same config.

    Raises:
        ConfigError: one line that names the field.
    """
    settings = config.evaluate
    if settings.judge == "digits" and config.data.source not in ("digits", "synthetic"):
        expected = f"'inception' for data.source {config.data.source!r}"
        raise invalid_value("evaluate.judge", "digits", expected)
    if settings.judge == "digits" and config.data.image_size % DIGIT_SIDE:
        expected = f"a multiple of {DIGIT_SIDE} for evaluate.judge 'digits'"
        raise invalid_value("data.image_size", config.data.image_size, expected)
    if settings.judge == "inception" and not place(settings.inception).is_file():
        raise ConfigError(
            f"evaluate.inception: got {settings.inception!r}; expected the file "
            "pt_inception-2015-12-05-6726825d.pth (docs/evaluation.md says where it is)"
        )
    if config.data.source == "latents" and not settings.reference and comparing(settings.metrics):
        expected = "a file of statistics: data.source 'latents' has no images to compute them from"
        raise invalid_value("evaluate.reference", settings.reference, expected)
    if settings.reference:
        with as_config_error("evaluate.reference"):
            open_reference(settings.reference, settings.metrics)
    count = settings.num_samples
    if stored is not None:
        count = len(stored)
        height, width = stored.shape[1:3]
        if settings.judge == "digits" and (height != width or height % DIGIT_SIDE):
            raise ConfigError(
                f"evaluate.samples: got images of {width} x {height} pixels; expected squares with "
                f"a side that is a multiple of {DIGIT_SIDE} for judge 'digits'"
            )
        for metric in metrics_named(settings.metrics):
            if metric.needs_labels and stored.labels is None:
                raise ConfigError(
                    f"evaluate.samples: got {settings.samples!r} without labels; expected the "
                    "directory of --mode=sample or an .npz with labels in arr_1, for "
                    f"{metric.names[0]!r}"
                )
    needed = max(metric.min_images for metric in metrics_named(settings.metrics))
    if count < needed:
        field = "num_samples" if stored is None else "samples"
        raise ConfigError(
            f"evaluate.{field}: got {count} images; expected at least {needed} for "
            f"{', '.join(settings.metrics)}"
        )
    if settings.reference_cache and (blocked := first_unwritable(place(settings.reference_cache))):
        expected = f"a writable directory; {blocked} is not writable"
        raise invalid_value("evaluate.reference_cache", settings.reference_cache, expected)
    return config


def open_samples(config: Config) -> StoredImages | None:
    """Opens the images of `evaluate.samples`, None if it is ''; process 0 lists them, for all."""
    path = config.evaluate.samples
    if not path:
        return None
    here = local_copy(path)  # of a bucket: every host has a copy of its own, at its own path
    with as_config_error("evaluate.samples"):
        found = share(lambda: open_stored(here), SourceError).at(here)
    require_same(lambda: {"evaluate.samples: names and sizes of the files": found.fingerprint()})
    return found


def make_feature_extractor(config: Config) -> FeatureExtractor:
    """Loads the Inception, or fits the digit classifier to the training digits.

    Raises:
        WeightsError: the file of weights is not the 2015 Inception's.
    """
    if config.evaluate.judge == "inception":
        return make_inception(config.evaluate.inception, config.evaluate.batch_size)
    source = data.open_source(config, "train")
    found = [source[i] for i in range(len(source))]
    images = np.stack([to_float(record["image"]) for record in found])
    labels = np.asarray([record["label"] for record in found])
    return DigitFeatures(DigitClassifier.fit(images, labels), f"digits of {source.fingerprint}")


def make_inception(path: str, batch_size: int) -> InceptionExtractor:
    """Loads the Inception from a file of weights; the file's hash is its identity."""
    network = read_inception(path)
    return InceptionExtractor.of(network, batch_size=batch_size, identity=file_hash(path))


def score(
    generator: Generator,
    extractor: FeatureExtractor,
    config: Config,
    workdir: Path,
    *,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Computes the metrics of `evaluate.num_samples` images with `sample.cfg_scale`.

    Args:
        generator: the models.
        extractor: `make_feature_extractor` of this config; loaded once for many scores.
        config: `evaluate.*` and `sample.*` are used.
        workdir: where computed references are kept, unless `evaluate.reference_cache` is given.
        after_batch: called after each batch of images.

    Returns:
        Metric -> value, the same on every process.

    Raises:
        ConfigError: a file that the config names is missing or cannot be used.
    """
    check_evaluation(config)
    reference = make_reference(config, workdir, extractor, after_batch)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        batches = generated_batches(generator, config, config.sample.cfg_scale, after_batch)
        return evaluate_batches(config.evaluate.metrics, extractor, reference, batches)


def generated_batches(
    generator: Generator,
    config: Config,
    cfg_scale: float,
    after_batch: Callable[[], None] = lambda: None,
) -> Iterator[Batch]:
    """Yields this process's share of the generated images, `evaluate.batch_size` at once.

    `after_batch` is called after each batch that the generator makes.
    """
    labels = labels_of(config, config.evaluate.num_samples)
    settings = generation_settings(config)
    wanted = range(len(labels))
    shares = generate_shares(generator, settings, labels, cfg_scale=cfg_scale, wanted=wanted)
    known = np.asarray(labels)
    watched = followed(shares, after_batch)
    for numbers, images in regrouped(watched, config.evaluate.batch_size):
        yield Batch(numbers, images, known[numbers])


def labels_of(config: Config, limit: int) -> list[int]:
    """Returns the labels of the images to generate, at most the first `limit`."""
    count = min(limit, config.evaluate.num_samples)
    counted = dataclasses.replace(config.sample, num_samples=count)
    return image_labels(dataclasses.replace(config, sample=counted))
