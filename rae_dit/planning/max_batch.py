"""The largest batch that fits, by a linear fit through two compiles.

Parameters and moments do not grow with the batch; images, activations and what the compiler keeps
of them do, each image by the same amount. So with temporaries T(b) for b images a device at two
batches,

    T(b) = T(b0) + (b - b0) (T(b1) - T(b0)) / (b1 - b0)                        (1)

and the largest b is where state + images + T reaches the limit. The line is the compiler's own in
the middle and errs where it changes its plan: near the limit XLA computes some things again to
save memory, so that a little more may fit, and sums over padded tiles make small steps.
"""

import math
from typing import NamedTuple


class Point(NamedTuple):
    """The memory of one compile.

    Attributes:
        batch_size: global.
        growing: bytes on one device that depend on the batch: images and temporaries.
    """

    batch_size: int
    growing: int


def second_batch(batch_size: int, unit: int) -> int:
    """Chooses another batch size to compile: a smaller one where there is one.

    Args:
        batch_size: of the first compile.
        unit: batches are multiples of it (devices x accumulation steps).
    """
    half = batch_size // 2 // unit * unit
    return half or 2 * batch_size


def largest_batch(first: Point, second: Point, *, fixed: int, limit: int, unit: int) -> int:
    """Computes the largest multiple of `unit` that fits by (1); 0 if none does.

    Args:
        first: a batch and its bytes.
        second: another.
        fixed: bytes on one device that do not depend on the batch.
        limit: bytes that one device has.
        unit: see `second_batch`.
    """
    slope = (first.growing - second.growing) / (first.batch_size - second.batch_size)
    if slope <= 0:  # a toy, whose temporaries are all gradients
        return first.batch_size if fixed + first.growing <= limit else 0
    most = first.batch_size + (limit - fixed - first.growing) / slope
    return max(0, math.floor(most / unit) * unit)
