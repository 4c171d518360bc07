"""From a config to a judge, a reference and tallies of images: what evaluating acts share.

Several processes each look at a share of the images; `together` makes one tally of theirs. Nothing
here depends on how images are split: the same figures come out up to rounding.
"""

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import refusal
from rae_dit.data.files import SourceError
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.digits import SIDE as DIGIT_SIDE
from rae_dit.evaluation.digits import DigitClassifier
from rae_dit.evaluation.feature_extractors import (
    DigitFeatures,
    FeatureExtractor,
    InceptionExtractor,
)
from rae_dit.evaluation.metric_state import Tally, from_bytes, merge_processes, to_bytes
from rae_dit.evaluation.references import hash_of, open_reference
from rae_dit.evaluation.stored import StoredImages, open_stored
from rae_dit.multihost import allgather_bytes
from rae_dit.setup import data
from rae_dit.storage.files import obstacle, replacing
from rae_dit.weights.inception import read_inception

log = logging.getLogger(__name__)

MANIFOLD = 10_000  # real images whose features are kept for precision and recall, as in ADM's files


class Batch(NamedTuple):
    """Images to look at, and their places among all."""

    numbers: np.ndarray  # int [b]
    images: np.ndarray  # float32 [b, H, W, 3] in [0, 1]
    labels: np.ndarray | None = None  # int [b]


def during_training(config: Config) -> Config:
    """The config of an evaluation that a training run makes of itself."""
    count = config.metrics.evaluate_samples
    settings = dataclasses.replace(config.evaluate, num_samples=count, samples="")
    return dataclasses.replace(config, evaluate=settings)


def check(config: Config) -> Config:
    """Refuses what an evaluation could not use, without computing anything.

    Returns:
        The config as it is.

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
        stored = stored_samples(config)
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
        expected = f"a directory; {place} is none that can be written"
        raise refusal("evaluate.reference_cache", settings.reference_cache, expected)
    return config


@contextlib.contextmanager
def as_config_error(field: str) -> Iterator[None]:
    """Turns a SourceError inside the block into a ConfigError that names the field."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(f"{field}: {error}") from error


def stored_samples(config: Config) -> StoredImages:
    """The images of `evaluate.samples`."""
    with as_config_error("evaluate.samples"):
        return open_stored(config.evaluate.samples)


def make_judge(config: Config) -> FeatureExtractor:
    """The judge that the config names, with its weights loaded or fitted.

    Raises:
        WeightsError: the file of weights is not the 2015 Inception's.
    """
    if config.evaluate.judge == "inception":
        return inception_judge(config.evaluate.inception, config.evaluate.batch_size)
    source = data.open_source(config, "train")
    found = [source[i] for i in range(len(source))]
    images = np.stack([to_float(record["image"]) for record in found])
    labels = np.asarray([record["label"] for record in found])
    return DigitFeatures(DigitClassifier.fit(images, labels), f"digits of {source.fingerprint}")


def inception_judge(path: str, batch_size: int) -> InceptionExtractor:
    """The Inception with the weights of a file, known by the file's hash."""
    network = read_inception(path)
    return InceptionExtractor.of(network, batch_size=batch_size, identity=hash_of(Path(path)))


def make_reference(config: Config, workdir: Path, judge: FeatureExtractor) -> Tally | None:
    """What generated images are compared with; None where no metric compares.

    Computed statistics are kept in `evaluate.reference_cache` under a hash of the judge and the
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
            config,
            workdir,
            f"{judge.identity}/{source.fingerprint}/{keep}",
            lambda: tally_of(judge, source_batches(source, settings.batch_size), keep=keep),
        )
    with as_config_error("evaluate.reference"):
        file = open_reference(settings.reference, settings.metrics)
        tally = Tally()
        if file.lacks(settings.metrics):
            images = open_stored(file.path)
            tally = cached(
                config,
                workdir,
                f"{judge.identity}/{hash_of(file.path)}",
                lambda: tally_of(
                    judge,
                    stored_batches(images, settings.batch_size, field="evaluate.reference"),
                    keep=1,
                ),
            )
        file.fill(tally)
    return tally


def cached(config: Config, workdir: Path, identity: str, compute: Callable[[], Tally]) -> Tally:
    """The tally kept under a hash of `identity`, computed by all processes if there is none."""
    folder = config.evaluate.reference_cache
    name = f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    path = (Path(folder) if folder else workdir / "references") / name
    stored = path.read_bytes() if jax.process_index() == 0 and path.is_file() else b""
    if any(allgather_bytes(stored[:1])):
        return from_bytes(stored) if stored else Tally()
    log.info("computing the reference of %s (kept in %s)", config.evaluate.judge, path)
    tally = compute()
    if jax.process_index() == 0:
        with replacing(path) as temporary:
            temporary.write_bytes(to_bytes(tally))
    return tally


def tally_of(judge: FeatureExtractor, batches: Iterable[Batch], *, keep: int) -> Tally:
    """The tally of all processes' images; each looks at its own."""
    tally = Tally(keep)
    for numbers, images, labels in batches:
        if len(numbers):
            tally.add(numbers, judge(images), labels)
    return merge_processes(tally)


def source_batches(source: Source, batch_size: int) -> Iterator[Batch]:
    """This process's share of the images of a source."""
    index, count = jax.process_index(), jax.process_count()
    whole = batch_size * count
    batches = ordered_batches(
        source, batch_size=whole, process_index=index, process_count=count, limit=None
    )
    total = -(-len(source) // whole)
    with batches:
        for number, batch in enumerate(progress(batches, "reference", total)):
            real = batch["weight"] > 0
            numbers = number * whole + index * batch_size + np.arange(batch_size)
            yield Batch(numbers[real], batch["image"][real], batch["label"][real])


def stored_batches(images: StoredImages, batch_size: int, *, field: str) -> Iterator[Batch]:
    """This process's share of stored images: a run of them. Errors name the config's field."""
    index, count = jax.process_index(), jax.process_count()
    start, stop = (len(images) * i // count for i in (index, index + 1))
    total = -(-(stop - start) // batch_size)
    blocks = images.blocks(batch_size, start, stop)
    with as_config_error(field):
        for block in progress(blocks, f"images of {images.path.name}", total):
            numbers = np.arange(start, start + len(block))
            start += len(block)
            labels = None if images.labels is None else images.labels[numbers]
            yield Batch(numbers, to_float(block), labels)


def progress(blocks: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Shows how far an iteration has come, on process 0."""
    return tqdm(blocks, desc=what, unit="batch", total=total, disable=jax.process_index() > 0)


def hashed(path: str) -> dict[str, str] | None:
    """A path and, where it is a file, its SHA-256, for a report; None for ''."""
    if not path:
        return None
    return {"path": path} | ({"sha256": hash_of(Path(path))} if Path(path).is_file() else {})
