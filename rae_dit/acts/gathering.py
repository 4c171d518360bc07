"""What several processes tell each other, bit by bit: float64 would not survive a device."""

import io

import jax
import numpy as np
from jax.experimental import multihost_utils

from rae_dit.evaluation.tally import Tally, from_arrays, to_arrays


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
