"""What several processes tell each other, and what one of them does for all.

Tallies travel as bytes: float64 would not survive a device.
"""

import io
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from rae_dit.config import ConfigError
from rae_dit.evaluation.metric_state import Tally, from_arrays, to_arrays
from rae_dit.training.agreement import told_by_all


def on_first_process(work: Callable[[], None]) -> None:
    """Runs it on process 0; its ConfigError is raised on all."""
    problem = ""
    if jax.process_index() == 0:
        try:
            work()
        except ConfigError as error:
            problem = str(error)
    problem = told_by_all(problem)
    if problem:
        raise ConfigError(problem)


def agreed(numbers: set[int], count: int) -> set[int]:
    """Those of the numbers below `count` that process 0 has; to others a directory may look older.

    A barrier too.
    """
    flags = np.isin(np.arange(count), sorted(numbers))
    return set(np.flatnonzero(multihost_utils.broadcast_one_to_all(flags)).tolist())


def gathered(content: bytes) -> list[bytes]:
    """The bytes of every process, on every process."""
    if jax.process_count() == 1:
        return [content]
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(content))))
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def merged(tally: Tally) -> Tally:
    """The tally of all processes' images, on every process."""
    if jax.process_count() == 1:
        return tally
    whole = Tally(tally.keep)
    for part in gathered(packed(tally)):
        whole.merge(unpacked(part))
    return whole


def packed(tally: Tally) -> bytes:
    """A tally as the bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **to_arrays(tally))  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(content: bytes) -> Tally:
    """The inverse of `packed`."""
    with np.load(io.BytesIO(content)) as arrays:
        return from_arrays(arrays)
