"""Lengths of arrays in collectives."""

import numpy as np

_SHORTEST = 512
_HALF_BITS = 31  # of a length: devices may have no integers of more than 32 bits


def padded(values: np.ndarray, length: int | None = None) -> np.ndarray:
    """Appends zeros up to one of a few lengths, because each length is a program of its own.

    Args:
        values: of one axis.
        length: the longest of all processes; None: they have the same.
    """
    longest = len(values) if length is None else length
    found = np.zeros(max(_SHORTEST, 1 << (longest - 1).bit_length()), values.dtype)
    found[: len(values)] = values
    return found


def split_length(length: int) -> np.ndarray:
    """Splits a length into two int32, high and low."""
    return np.array(divmod(length, 2**_HALF_BITS), np.int32)


def join_length(halves: np.ndarray) -> int:
    """Returns the length that `split_length` has split."""
    high, low = (int(half) for half in halves)
    return high * 2**_HALF_BITS + low
