"""Batches of images -> metric values: shared by the modes that evaluate, and computed references.

Every process extracts the features of its share of the images; the states are merged over the
processes. Metric values depend on how the images are split by rounding only.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from rae_dit.config import ConfigError
from rae_dit.data.files import SourceError
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.feature_extractors import FeatureExtractor
from rae_dit.evaluation.metric_state import (
    Tally,
    from_bytes,
    merge_processes,
    metric_values,
    to_bytes,
)
from rae_dit.evaluation.references import hash_of
from rae_dit.evaluation.stored import StoredImages
from rae_dit.multihost import allgather_bytes
from rae_dit.storage.files import replacing

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Images to look at, and their places among all."""

    numbers: np.ndarray  # int [b]
    images: np.ndarray  # float32 [b, H, W, 3] in [0, 1]
    labels: np.ndarray | None = None  # int [b]


@contextlib.contextmanager
def as_config_error(field: str) -> Iterator[None]:
    """Turns a SourceError inside the block into a ConfigError that names the field."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(f"{field}: {error}") from error


def cached(folder: Path, identity: str, compute: Callable[[], Tally]) -> Tally:
    """The tally kept under a hash of `identity`, computed by all processes if there is none."""
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    stored = path.read_bytes() if jax.process_index() == 0 and path.is_file() else b""
    if any(allgather_bytes(stored[:1])):
        return from_bytes(stored) if stored else Tally()
    log.info("computing reference statistics; they will be kept in %s", path)
    tally = compute()
    if jax.process_index() == 0:
        with replacing(path) as temporary:
            temporary.write_bytes(to_bytes(tally))
    return tally


def evaluate_batches(
    metrics: tuple[str, ...],
    extractor: FeatureExtractor,
    reference: Tally | None,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Computes the metrics of images on process 0 and broadcasts them."""
    keep = 1 if {"precision", "recall"} & {*metrics} else 0
    tally = tally_of(extractor, batches, keep=keep)
    values = metric_values(metrics, tally, reference) if jax.process_index() == 0 else {}
    told: dict[str, float] = json.loads(allgather_bytes(json.dumps(values).encode())[0])
    return told


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


def regrouped(
    shares: Iterator[tuple[np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the same images in groups of `size`; the last group may be smaller."""
    numbers, images = [], []
    for some_numbers, some_images in shares:
        numbers.append(some_numbers)
        images.append(some_images)
        while sum(map(len, numbers)) >= size:
            all_numbers, all_images = np.concatenate(numbers), np.concatenate(images)
            yield all_numbers[:size], all_images[:size]
            numbers, images = [all_numbers[size:]], [all_images[size:]]
    if sum(map(len, numbers)):
        yield np.concatenate(numbers), np.concatenate(images)


def progress(blocks: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Shows how far an iteration has come, on process 0."""
    return tqdm(blocks, desc=what, unit="batch", total=total, disable=jax.process_index() > 0)


def hashed(path: str) -> dict[str, str] | None:
    """A path and, where it is a file, its SHA-256, for a report; None for ''."""
    if not path:
        return None
    return {"path": path} | ({"sha256": hash_of(Path(path))} if Path(path).is_file() else {})
