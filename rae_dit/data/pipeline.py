"""Batches of a data source: the endless shuffled training stream, and one ordered pass.

The training stream is elastic. Which examples are in the global batch of step s, in which order
and mirrored or not, depends on the source, the seed, the global batch size and s, and on nothing
else: not on the number of processes, threads or workers, nor on interruptions.
So a checkpoint needs no state of any iterator; the step number is the position.
"""

from collections.abc import Mapping
from typing import Any

import grain
from absl import flags

from rae_dit.data.bad_images import PrepareImage, PrepareRandomCrop, Replacements
from rae_dit.data.batches import Batches
from rae_dit.data.files import Images
from rae_dit.data.sources import Numbered, Source, image_shape
from rae_dit.data.transforms import Prepare, flip_example, to_float_batch
from rae_dit.data.workers import start_worker
from rae_dit.provenance import Provenance

# grain's defaults are 16 threads and 500 elements in every process; here an element is a batch.
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


class ChangedDataError(ValueError):
    """The data differ from those the run was started on."""


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    process_index: int,
    process_count: int,
    num_workers: int,
    flip: bool,
) -> Batches:
    """Shuffles, repeats, mirrors and batches without end: this process's share of every batch.

    The local batches of one step, concatenated in the order of the processes, are the global
    batch of that step. Every epoch is reshuffled and holds every record once; a batch may
    straddle two epochs, and only such a batch may hold a record twice.

    Args:
        source: the records.
        batch_size: examples per step over all processes.
        seed: not negative; fixes order and mirroring.
        start_step: number of steps already done; the first batch is that of this step.
        process_index: this process, in 0..process_count-1.
        process_count: number of processes that share every batch.
        num_workers: processes that prepare batches; 0 prepares them on threads of this one.
            Workers are spawned: a script needs the `if __name__ == "__main__"` guard.
        flip: mirror half of the images left to right.

    Returns:
        Endless `{"image": float32 [B,H,W,3] in [0,1], "label": int32 [B]}` with
        B = batch_size / process_count. Close it. Its `replaced` counts damaged images.

    Raises:
        ValueError: the numbers do not fit each other or the source; later, from the iterator,
            if a record is not what the source promised (the message has its index), or if too
            many images are damaged.
    """
    local_size = _local_batch_size(batch_size, process_index, process_count)
    if batch_size > len(source):
        raise ValueError(
            f"batch_size: got {batch_size} with {len(source)} records; expected a batch no larger "
            "than one epoch. Lower data.batch_size or use more data."
        )
    for name, value in (("seed", seed), ("start_step", start_step), ("num_workers", num_workers)):
        if value < 0:
            raise ValueError(f"{name}: got {value}; expected 0 or more")

    length = len(source)
    prepare = Prepare(image_shape(source), source.num_classes, weighted=False)
    # Every branch is one step after `repeat`: the place of a step decides the seed of the next.
    if isinstance(source, Images) and source.crop != "adm_center":
        stream = grain.MapDataset.range(length).seed(seed).shuffle().repeat()
        stream = stream.random_map(PrepareRandomCrop(source, PrepareImage(prepare)))
    else:
        stream = grain.MapDataset.source(Numbered(source, length, length))
        stream = stream.seed(seed).shuffle().repeat().map(_preparing(source, prepare))
    if flip:
        stream = stream.random_map(flip_example)
    # Batch first, slice after: so no number of processes changes what follows what.
    stream = stream.batch(local_size, drop_remainder=True)
    stream = stream[process_index + start_step * process_count :: process_count]
    batches = _read(stream, num_workers)
    return Batches(batches, endless=True, replacements=_counting(source, length, process_count))


def ordered_batches(
    source: Source,
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
    limit: int | None,
    start: int = 0,
    num_workers: int = 0,
) -> Batches:
    """Goes through the records once, in order, each in exactly one batch of one process.

    Process p has rows p*B..(p+1)*B-1 of every global batch, B = batch_size / process_count. Every
    process yields the same number of batches, so that collectives match; what is missing in the
    last global batch is zeros with weight 0. So is the weight of a row whose record is damaged:
    the image in it is that of another record, which has a row of its own.

    Args:
        source: the records.
        batch_size: examples per batch over all processes; may be larger than the source.
        process_index: this process, in 0..process_count-1.
        process_count: number of processes that share every batch.
        limit: number of the record to stop before; None for all.
        start: number of the first record: the pass of a process that was stopped goes on there.
        num_workers: as for `train_batches`; worth their start for a long pass.

    Returns:
        `{"image": float32 [B,H,W,3] in [0,1], "label": int32 [B], "weight": float32 [B]}` with
        weight 1 for a record and 0 for padding and substitutes. Closes itself at its end.

    Raises:
        ValueError: the numbers do not fit each other or the source; later, from the iterator,
            if a record is not what the source promised (the message has its index).
    """
    local_size = _local_batch_size(batch_size, process_index, process_count)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: got {limit}; expected at least 1 record, or None for all")
    real = len(source) if limit is None else min(limit, len(source))
    if not 0 <= start <= real:
        raise ValueError(f"start: got {start}; expected 0..{real}, the number of records")
    padded = start + -(-(real - start) // batch_size) * batch_size
    prepare = Prepare(image_shape(source), source.num_classes, weighted=True)
    batches = (
        grain.MapDataset.source(Numbered(source, real, padded))[start:]
        .map(_preparing(source, prepare))
        .batch(local_size, drop_remainder=True)
    )[process_index::process_count]
    replacements = _counting(source, real - start, process_count)
    return Batches(_read(batches, num_workers), endless=False, replacements=replacements)


def position(source: Source, *, step: int, seed: int, batch_size: int) -> dict[str, int | str]:
    """Describes a place in the training stream: all that a checkpoint needs to know of the data.

    Args:
        source: the records.
        step: number of steps done, hence the step of the next batch.
        seed: as given to `train_batches`.
        batch_size: global, as given to `train_batches`.

    Returns:
        A dict for JSON with the keys step, seed, batch_size and fingerprint.
    """
    fingerprint = source.fingerprint
    return {"step": step, "seed": seed, "batch_size": batch_size, "fingerprint": fingerprint}


def check_position(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuses to resume on other data than the run was started on.

    Args:
        saved: the `position` in the checkpoint.
        current: the `position` of this run, with the step of the restored state.

    Raises:
        ChangedDataError: naming every field that is missing, unknown or different.
    """
    Provenance.of(current).require_same(
        saved,
        "the data stream changed: data position of the checkpoint",
        "Restore the old settings, or start a new run in another workdir",
        error=ChangedDataError,
    )


def _read(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    """Reads the batches in order with workers or threads; converts images to float32."""
    read = batches.to_iter_dataset(_READ)
    if num_workers > 0:
        # grain 0.2.18 reads an absl flag of its own here and fails when nobody has parsed flags,
        # as in a notebook or under pytest (google/grain#1355). `app.run` still parses them later.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=num_workers)
        read = read.mp_prefetch(options, worker_init_fn=start_worker)
    # Last, and in this process: workers hand over bytes, a quarter of the floats.
    return read.map(to_float_batch)


def _preparing(source: Source, prepare: Prepare) -> Prepare | PrepareImage:
    """Returns the function from a numbered record of this source to an example."""
    return PrepareImage(prepare) if isinstance(source, Images) else prepare


def _counting(source: Source, records: int, process_count: int) -> Replacements | None:
    """Returns a counter of damaged images for sources that may have some, else None."""
    if not isinstance(source, Images):
        return None
    return Replacements(source, records=records, process_count=process_count)


def _local_batch_size(batch_size: int, process_index: int, process_count: int) -> int:
    """Computes the examples per process of a global batch."""
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index: got {process_index} of process_count {process_count}; expected an "
            "index in 0..process_count-1. Pass jax.process_index() and jax.process_count()."
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size: got {batch_size} for {process_count} processes; expected a "
            "positive multiple of the number of processes, since batch_size counts the examples "
            "of all of them. Correct data.batch_size."
        )
    return batch_size // process_count
