"""Config -> feature extractor, reference statistics and metric values of generated images.

`score` is the one way from a model to metric values: modes 'evaluate' and 'sweep' and the
evaluation during training all call it. docs/evaluation.md describes the metrics.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import refusal
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.digits import SIDE as DIGIT_SIDE
from rae_dit.evaluation.digits import DigitClassifier
from rae_dit.evaluation.feature_extractors import (
    DigitFeatures,
    FeatureExtractor,
    InceptionExtractor,
)
from rae_dit.evaluation.metric_state import Tally
from rae_dit.evaluation.pipeline import (
    Batch,
    as_config_error,
    cached,
    evaluate_batches,
    regrouped,
    source_batches,
    stored_batches,
    tally_of,
)
from rae_dit.evaluation.references import hash_of, open_reference
from rae_dit.evaluation.stored import StoredImages, open_stored
from rae_dit.sampling.generate import Generator, generate_shares
from rae_dit.sampling.labels import image_labels
from rae_dit.setup import data, models
from rae_dit.storage.files import obstacle
from rae_dit.weights.inception import read_inception

MANIFOLD = 10_000  # real images whose features are kept for precision and recall, as in ADM's files


def during_training(config: Config) -> Config:
    """Returns the config of the evaluation that a training run makes of its own samples."""
    count = config.metrics.evaluate_samples
    settings = dataclasses.replace(config.evaluate, num_samples=count, samples="")
    return dataclasses.replace(config, evaluate=settings)


def check_evaluation(config: Config) -> Config:
    """Checks files, image sizes and counts before anything is computed.

    Returns:
        The same config.

    Raises:
        ConfigError: one line that names the field.
    """
    settings = config.evaluate
    if settings.judge == "digits" and config.data.source not in ("digits", "synthetic"):
        expected = f"'inception' for data.source {config.data.source!r}"
        raise refusal("evaluate.judge", "digits", expected)
    if settings.judge == "digits" and config.data.image_size % DIGIT_SIDE:
        expected = f"a multiple of {DIGIT_SIDE} for evaluate.judge 'digits'"
        raise refusal("data.image_size", config.data.image_size, expected)
    if settings.judge == "inception" and not Path(settings.inception).is_file():
        raise ConfigError(
            f"evaluate.inception: got {settings.inception!r}, expected the file "
            "pt_inception-2015-12-05-6726825d.pth (docs/evaluation.md says where it is)"
        )
    if settings.reference:
        with as_config_error("evaluate.reference"):
            open_reference(settings.reference, settings.metrics)
    count = settings.num_samples
    if settings.samples:
        stored = open_samples(config)
        count = len(stored)
        height, width = stored.shape[1:3]
        if settings.judge == "digits" and (height != width or height % DIGIT_SIDE):
            raise ConfigError(
                f"evaluate.samples: got images of {width} x {height} pixels, expected squares with "
                f"a side that is a multiple of {DIGIT_SIDE} for judge 'digits'"
            )
        if "class_accuracy" in settings.metrics and stored.labels is None:
            raise ConfigError(
                f"evaluate.samples: got {settings.samples!r} without labels, expected names that "
                "end in _LABEL or an array arr_1, for 'class_accuracy'"
            )
    needed = 4 if {"precision", "recall"} & {*settings.metrics} else 2
    if count < needed:
        field = "samples" if settings.samples else "num_samples"
        raise ConfigError(
            f"evaluate.{field}: got {count} images, expected at least {needed} for "
            f"{', '.join(settings.metrics)}"
        )
    if settings.reference_cache and (place := obstacle(Path(settings.reference_cache))):
        expected = f"a writable directory; {place} is not writable"
        raise refusal("evaluate.reference_cache", settings.reference_cache, expected)
    return config


def open_samples(config: Config) -> StoredImages:
    """Opens the images of `evaluate.samples`."""
    with as_config_error("evaluate.samples"):
        return open_stored(config.evaluate.samples)


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
    return InceptionExtractor.of(network, batch_size=batch_size, identity=hash_of(Path(path)))


def make_reference(config: Config, workdir: Path, extractor: FeatureExtractor) -> Tally | None:
    """Reads or computes what generated images are compared with; None where no metric compares.

    Computed statistics are kept in `evaluate.reference_cache` under a hash of the extractor and the
    images, so they are computed once. Only process 0 reads and writes there; the others may get
    None.

    Raises:
        ConfigError: `evaluate.reference` cannot be used.
    """
    settings = config.evaluate
    if not settings.reference:
        if {*settings.metrics} <= {"inception_score", "class_accuracy"}:
            return None
        source = data.open_source(config, "train")
        keep = -(-len(source) // MANIFOLD)
        return cached(
            reference_folder(config, workdir),
            f"{extractor.identity}/{source.fingerprint}/{keep}",
            lambda: tally_of(extractor, source_batches(source, settings.batch_size), keep=keep),
        )
    with as_config_error("evaluate.reference"):
        file = open_reference(settings.reference, settings.metrics)
        tally = Tally()
        if file.lacks(settings.metrics):
            images = open_stored(file.path)
            tally = cached(
                reference_folder(config, workdir),
                f"{extractor.identity}/{hash_of(file.path)}",
                lambda: tally_of(
                    extractor,
                    stored_batches(images, settings.batch_size, field="evaluate.reference"),
                    keep=1,
                ),
            )
        file.fill(tally)
    return tally


def reference_folder(config: Config, workdir: Path) -> Path:
    """Returns the directory of computed references."""
    folder = config.evaluate.reference_cache
    return Path(folder) if folder else workdir / "references"


def score(
    generator: Generator, extractor: FeatureExtractor, config: Config, workdir: Path
) -> dict[str, float]:
    """Computes the metrics of `evaluate.num_samples` images with `sample.cfg_scale`.

    Args:
        generator: the models.
        extractor: `make_feature_extractor` of this config; loaded once for many scores.
        config: `evaluate.*` and `sample.*` are used.
        workdir: where computed references are kept, unless `evaluate.reference_cache` is given.

    Returns:
        Metric -> value, the same on every process.

    Raises:
        ConfigError: a file that the config names is missing or cannot be used.
    """
    check_evaluation(config)
    reference = make_reference(config, workdir, extractor)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        batches = generated_batches(generator, config, config.sample.cfg_scale)
        return evaluate_batches(config.evaluate.metrics, extractor, reference, batches)


def generated_batches(generator: Generator, config: Config, cfg_scale: float) -> Iterator[Batch]:
    """Yields this process's share of the generated images, `evaluate.batch_size` at once."""
    labels = labels_of(config, config.evaluate.num_samples)
    shares = generate_shares(
        generator, config, labels, cfg_scale=cfg_scale, wanted=range(len(labels))
    )
    known = np.asarray(labels)
    for numbers, images in regrouped(shares, config.evaluate.batch_size):
        yield Batch(numbers, images, known[numbers])


def labels_of(config: Config, limit: int) -> list[int]:
    """Returns the labels of the images to generate, at most the first `limit`."""
    count = min(limit, config.evaluate.num_samples)
    counted = dataclasses.replace(config.sample, num_samples=count)
    return image_labels(dataclasses.replace(config, sample=counted))
