"""Batches of images -> metric values: shared by the modes that evaluate, and computed references.

Every process extracts the features of its share of the images; the states are merged over the
processes. Metric values depend on how the images are split by rounding only.
"""

import contextlib
import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from rae_dit.config import ConfigError
from rae_dit.data.files import SourceError
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float
from rae_dit.evaluation.feature_extractors import FeatureExtractor
from rae_dit.evaluation.metric_state import MetricState, merge_processes
from rae_dit.evaluation.metrics import metrics_named
from rae_dit.evaluation.metrics.base import Metric
from rae_dit.evaluation.stored import StoredImages
from rae_dit.multihost import allgather_bytes
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import write_bytes

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Batch(NamedTuple):
    """Images of a set, with their places in it."""

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


def cached_reference(
    folder: Path, identity: str, kinds: Sequence[type[Metric]], compute: Callable[[], MetricState]
) -> MetricState:
    """Reads reference statistics kept under a hash of `identity`, or computes and keeps them.

    All processes compute; process 0 reads and writes. Where it reads, the others get no sums.

    Args:
        folder: of the cache.
        identity: all that the statistics depend on.
        kinds: metrics whose sums are needed.
        compute: called on every process if there is no file, or none with these sums.
    """
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    state = _read_cached(path, kinds) if jax.process_index() == 0 else None
    if any(allgather_bytes(b"" if state is None else b"found")):
        return MetricState.of(kinds) if state is None else state
    log.info("computing reference statistics; they will be kept in %s", path)
    state = compute()
    if jax.process_index() == 0:
        try:
            write_bytes(path, state.to_bytes())
        except (OSError, StorageError) as error:  # what they are for goes on
            log.warning("%s cannot be written (%s)", path, error)
    return state


def _read_cached(path: Path, kinds: Sequence[type[Metric]]) -> MetricState | None:
    try:
        if not path.is_file():
            return None
        return MetricState.from_bytes(kinds, path.read_bytes())
    except (KeyError, ValueError, OSError, StorageError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        log.warning("%s: cannot be used (%s); it is computed again", path, reason)
        return None


def evaluate_batches(
    metrics: tuple[str, ...],
    extractor: FeatureExtractor,
    reference: MetricState | None,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Computes metrics of images on process 0 and broadcasts them."""
    state = accumulate(MetricState.of(metrics_named(metrics)), extractor, batches)
    values = state.compute(metrics, reference) if jax.process_index() == 0 else {}
    shared: dict[str, float] = json.loads(allgather_bytes(json.dumps(values).encode())[0])
    return shared


def accumulate(
    state: MetricState, extractor: FeatureExtractor, batches: Iterable[Batch]
) -> MetricState:
    """Adds this process's batches to a state and merges the states of all processes."""
    for numbers, images, labels in batches:
        if len(numbers):
            state.update(numbers, extractor(images), labels)
    return merge_processes(state)


def source_batches(source: Source, batch_size: int, *, num_workers: int) -> Iterator[Batch]:
    """Yields this process's share of the images of a source; see `ordered_batches`."""
    index, count = jax.process_index(), jax.process_count()
    whole = batch_size * count
    rows = index * batch_size + np.arange(batch_size)
    batches = ordered_batches(
        source, batch_size=whole, limit=None, num_workers=num_workers, rows=rows
    )
    total = -(-len(source) // whole)
    with batches:
        for number, batch in enumerate(progress(batches, "reference", total)):
            real = batch["weight"] > 0
            numbers = number * whole + rows
            yield Batch(numbers[real], to_float(batch["image"][real]), batch["label"][real])


def stored_batches(images: StoredImages, batch_size: int, *, field: str) -> Iterator[Batch]:
    """Yields this process's share of stored images; errors name the config field."""
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


def followed(batches: Iterable[Item], call: Callable[[], None]) -> Iterator[Item]:
    """Yields the same batches; calls `call` when each is done with."""
    for batch in batches:
        yield batch
        call()


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
    """Shows a progress bar on process 0."""
    return tqdm(blocks, desc=what, unit="batch", total=total, disable=jax.process_index() > 0)
