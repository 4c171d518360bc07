"""Batches of a data source: the endless shuffled training stream, and one ordered pass.

The training stream is elastic. Which examples are in the global batch of step s, in which order
and mirrored or not, depends on the source, the seed, the global batch size and s, and on nothing
else: not on the number of processes, threads or workers, nor on interruptions.
So a checkpoint needs no state of any iterator; the step number is the position.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from rae_dit.data.bad_images import PrepareImage, PrepareRandomCrop, Replacements
from rae_dit.data.batches import Batches
from rae_dit.data.files import Images
from rae_dit.data.latent_stream import ordered_stream, random_stream
from rae_dit.data.latents import StoredLatents
from rae_dit.data.order import GroupOrder, group_starts
from rae_dit.data.position import Shuffle
from rae_dit.data.sources import Numbered, Source, image_shape
from rae_dit.data.transforms import Example, Prepare, flip_example
from rae_dit.data.workers import WorkerBatches, check_shared_memory, fitting_workers

# grain's defaults are 16 threads and 500 elements in every process; here an element is a batch.
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)

# Images of a pass for which workers are started, which takes some seconds.
_WORTH_WORKERS = 2_000


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_workers: int,
    flip: bool,
    shuffle: Shuffle = "records",
    rows: Sequence[int] | np.ndarray | None = None,
) -> Batches:
    """Shuffles, repeats, mirrors and batches without end: this process's rows of every batch.

    Every epoch is reshuffled and holds every record once; a batch may straddle two epochs, and only
    such a batch may hold a record twice.

    Args:
        source: the records.
        batch_size: examples per step over all processes.
        seed: not negative; fixes order and mirroring.
        start_step: number of steps already done; the first batch is that of this step.
        num_workers: processes that prepare batches; 0 prepares them on threads of this one.
            Workers are spawned: a script needs the `if __name__ == "__main__"` guard.
        flip: mirror half of the images left to right.
        shuffle: "records" shuffles all records at once; "groups" does as data/order.py says where
            the source has groups, and else the same.
        rows: rows of every batch that this process reads, ascending; None for all.

    Returns:
        Endless `{"image": uint8 [B,H,W,3], "label": int32 [B]}` with B = len(rows); of cached
        latents "latent", and perhaps "scale", in place of "image".
        Close it. Its `replaced` counts damaged images.

    Raises:
        ConfigError: /dev/shm has no room for the batches of the workers.
        ValueError: the numbers do not fit each other or the source; later, from the iterator,
            if a record is not what the source promised (the message has its index), or if too
            many images are damaged.
    """
    rows = _checked_rows(rows, batch_size)
    if batch_size > len(source):
        raise ValueError(
            f"batch_size: got {batch_size} with {len(source)} records; expected a batch no larger "
            "than one epoch. Lower data.batch_size or use more data."
        )
    for name, value in (("seed", seed), ("start_step", start_step), ("num_workers", num_workers)):
        if value < 0:
            raise ValueError(f"{name}: got {value}; expected 0 or more")

    length = len(source)
    check_shared_memory(num_workers, batch_bytes(source, len(rows)))
    starts = group_starts(source) if shuffle == "groups" else None
    # One step in every branch: the number of steps before a random one decides its seed.
    if starts is not None:
        order = GroupOrder(starts, batch_size, seed)
        numbers = grain.MapDataset.range(length).seed(seed).repeat()
        numbers = numbers.map_with_index(lambda place, number: order(place))
    else:
        numbers = grain.MapDataset.range(length).seed(seed).shuffle().repeat()
    if isinstance(source, StoredLatents):
        stream = random_stream(source, numbers, flip=flip)
    else:
        stream = _random_images(source, numbers, flip=flip)
    mine = RowsOfBatches(stream, start_step * batch_size, batch_size, rows)
    replacements = _counting(source, length, batch_size // len(rows))
    return Batches(_read(mine, num_workers), endless=True, replacements=replacements)


def ordered_batches(
    source: Source,
    *,
    batch_size: int,
    limit: int | None,
    start: int = 0,
    num_workers: int = 0,
    rows: Sequence[int] | np.ndarray | None = None,
) -> Batches:
    """Goes through the records once, in order, each in exactly one batch of one process.

    Every process yields the same number of batches, so that collectives match; what is missing in
    the last global batch is zeros with weight 0. So is the weight of a row whose record is damaged:
    the image in it is that of another record, which has a row of its own.

    Args:
        source: the records.
        batch_size: examples per batch over all processes; may be larger than the source.
        limit: number of the record to stop before; None for all.
        start: number of the first record: the pass of a process that was stopped goes on there.
        num_workers: as for `train_batches`, but no more than there are batches, and none for fewer
            than 2,000 images a process: they would start for longer than they work.
        rows: as for `train_batches`.

    Returns:
        `{"image": uint8 [B,H,W,3], "label": int32 [B], "weight": float32 [B]}` with
        weight 1 for a record and 0 for padding and substitutes. Closes itself at its end.

    Raises:
        ValueError: the numbers do not fit each other or the source; later, from the iterator,
            if a record is not what the source promised (the message has its index).
    """
    rows = _checked_rows(rows, batch_size)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: got {limit}; expected at least 1 record, or None for all")
    real = len(source) if limit is None else min(limit, len(source))
    if not 0 <= start <= real:
        raise ValueError(f"start: got {start}; expected 0..{real}, the number of records")
    padded = start + -(-(real - start) // batch_size) * batch_size
    if isinstance(source, StoredLatents):
        stream = ordered_stream(source, real=real, padded=padded)
    else:
        prepare = Prepare(image_shape(source), source.num_classes, weighted=True)
        stream = grain.MapDataset.source(Numbered(source, real, padded))
        stream = stream.map(_preparing(source, prepare))
    mine = RowsOfBatches(stream, start, batch_size, rows)
    replacements = _counting(source, real - start, batch_size // len(rows))
    num_workers = min(num_workers, len(mine) // len(rows)) if len(mine) >= _WORTH_WORKERS else 0
    num_workers = fitting_workers(num_workers, batch_bytes(source, len(rows)))
    return Batches(_read(mine, num_workers), endless=False, replacements=replacements)


@dataclass(frozen=True, eq=False)
class PrepareRecord:
    """Function from the number of a record to its example."""

    source: Source
    prepare: Callable[[tuple[int, Any]], Example]

    def __call__(self, index: int) -> Example:
        """Returns the example of record `index`."""
        return self.prepare((index, self.source[index]))


@dataclass(frozen=True, eq=False)
class RowsOfBatches:
    """Examples of the rows that one process reads, batch after batch.

    Attributes:
        stream: the examples of all processes.
        first: place in `stream` of the first batch.
        batch_size: examples per batch over all processes.
        rows: int64 [B], places in every batch.
    """

    stream: grain.MapDataset
    first: int
    batch_size: int
    rows: np.ndarray

    def __len__(self) -> int:
        return (len(self.stream) - self.first) // self.batch_size * len(self.rows)

    def __getitem__(self, index: int) -> Example:
        batch, row = divmod(index, len(self.rows))
        example: Example = self.stream[self.first + batch * self.batch_size + int(self.rows[row])]
        return example


def _read(examples: RowsOfBatches, num_workers: int) -> WorkerBatches | grain.DatasetIterator:
    """Reads the batches in order with workers or threads."""
    batches = grain.MapDataset.source(examples).batch(len(examples.rows), drop_remainder=True)
    if num_workers > 0:
        return WorkerBatches(batches, _READ, num_workers)
    return iter(batches.to_iter_dataset(_READ))


def batch_bytes(source: Source, rows: int) -> int:
    """Computes the size of this process's part of a batch of images or cached latents."""
    if isinstance(source, StoredLatents):
        return rows * source.manifest.record_bytes
    return rows * math.prod(image_shape(source))


def _random_images(source: Source, numbers: grain.MapDataset, *, flip: bool) -> grain.MapDataset:
    """Reads numbered images, cropped as the source says, half of them mirrored if `flip`."""
    prepare = Prepare(image_shape(source), source.num_classes, weighted=False)
    if isinstance(source, Images) and source.crop != "adm_center":
        stream = numbers.random_map(PrepareRandomCrop(source, PrepareImage(prepare)))
    else:
        stream = numbers.map(PrepareRecord(source, _preparing(source, prepare)))
    return stream.random_map(flip_example) if flip else stream


def _preparing(source: Source, prepare: Prepare) -> Prepare | PrepareImage:
    """Returns the function from a numbered record of this source to an example."""
    return PrepareImage(prepare) if isinstance(source, Images) else prepare


def _counting(source: Source, records: int, process_count: int) -> Replacements | None:
    """Returns a counter of damaged images for sources that may have some, else None."""
    if not isinstance(source, Images):
        return None
    return Replacements(source, records=records, process_count=process_count)


def _checked_rows(rows: Sequence[int] | np.ndarray | None, batch_size: int) -> np.ndarray:
    """Returns the rows as int64 [B].

    Raises:
        ValueError: they are not distinct, ascending places in a batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; expected at least 1. Correct the config.")
    checked = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
    inside = len(checked) > 0 and checked[0] >= 0 and checked[-1] < batch_size
    if not inside or (np.diff(checked) <= 0).any():
        raise ValueError(
            f"rows: got {checked.tolist()}; expected ascending numbers in 0..{batch_size - 1}, the "
            "rows of every batch that this process reads"
        )
    return checked
