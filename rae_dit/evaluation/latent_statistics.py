r"""Mean and variance of latents, element by element, over a data set: in whole numbers, so exact.

A latent element is a coordinate of a layer-normalised token of width D, so |x| < sqrt(D). In units
of 2^-32 it is a whole number q, cut into a high part a and a low part b of 19 bits each:

    q = round(2^32 x),      q = 2^19 a + b,      0 <= b < 2^19,      |x| < 64          (1)

Four sums of 64 bits say everything, and none of them can overflow for n < 2^25 images:

    S = sum q,      sum q^2 = 2^38 sum a^2 + 2^20 sum a b + sum b^2 = Q                (2)
    mean = S / (2^32 n),      variance = (n Q - S^2) / (2^64 n^2)                      (3)

Addition of whole numbers has no order. The same latents give the same bits whatever the order, the
batch size, the number of devices and processes, and the interruptions; parts counted apart are
merged by adding. (3) is computed in integers of any length and rounded once, to float64.

How exact: a float32 x is a multiple of 2^-32 from |x| = 2^-9 on; smaller ones are rounded by at
most 2^-33. So mean and standard deviation are those of the latents to 2^-33 = 1.2e-10, a hundred
times below the rounding of the float32 arithmetic that made them. The reference estimates both by a
batch norm's running average, which depends on the order (SEMANTICS 4.9-12).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int64

UNIT_BITS = 32
LOW_BITS = 19
LIMIT = 64.0  # no element reaches it up to D = 4096
MAX_IMAGES = 2**25 - 1


class Totals(NamedTuple):
    """The sums of (2) over the latents seen so far.

    Attributes:
        images: latents seen, n.
        strange: numbers among them that are not finite or not in (-64, 64); if there are any, the
            sums mean nothing.
        value: sum of q.
        high: sum of a^2.
        mixed: sum of a b.
        low: sum of b^2.
    """

    images: Int64[Array | np.ndarray, ""]
    strange: Int64[Array | np.ndarray, ""]
    value: Int64[Array | np.ndarray, "h w D"]
    high: Int64[Array | np.ndarray, "h w D"]
    mixed: Int64[Array | np.ndarray, "h w D"]
    low: Int64[Array | np.ndarray, "h w D"]


def nothing(latent_shape: tuple[int, int, int]) -> Totals:
    """The totals of no latents of shape (h, w, D), as numpy arrays."""
    none = np.zeros((), np.int64)
    return Totals(none, none, *np.zeros((4, *latent_shape), np.int64))


def totals_of(latents: Float[Array, "B h w D"], weight: Float[Array, " B"]) -> Totals:
    """The totals of one batch; call it in `jax.enable_x64(True)`, or there are no 64 bits.

    Args:
        latents: float32, raw, of any device layout.
        weight: rows with weight 0 are padding and do not count.

    Raises:
        RuntimeError: outside of `jax.enable_x64(True)`.
    """
    counts = (weight > 0)[:, None, None, None]
    usable = jnp.abs(latents) < LIMIT  # False for NaN
    # The product is exact and below 2^38; rint is exact; so is what becomes of both in 64 bits.
    scaled = jnp.rint(latents * 2.0**UNIT_BITS)
    q = jnp.where(counts, scaled, 0.0).astype(jnp.int64)
    if q.dtype != np.int64:
        raise RuntimeError("no 64-bit integers here; call totals_of in jax.enable_x64(True)")
    a = q >> LOW_BITS
    b = q - (a << LOW_BITS)
    return Totals(
        images=jnp.sum(weight > 0, dtype=jnp.int64),
        strange=jnp.sum(counts & ~usable, dtype=jnp.int64),
        value=jnp.sum(q, axis=0),
        high=jnp.sum(a * a, axis=0),
        mixed=jnp.sum(a * b, axis=0),
        low=jnp.sum(b * b, axis=0),
    )


def merge(one: Totals, other: Totals) -> Totals:
    """The totals of two disjoint sets of latents together: exact, and in any order."""
    return jax.tree.map(lambda a, b: a + b, one, other)


def mean_and_variance(
    totals: Totals,
) -> tuple[Float64[np.ndarray, "h w D"], Float64[np.ndarray, "h w D"]]:
    """Equations (3): mean and biased variance (as a batch norm keeps it), each rounded once.

    Raises:
        ValueError: there are no latents, or too many, or strange numbers among them.
    """
    count = int(totals.images)
    if not 0 < count <= MAX_IMAGES:
        raise ValueError(f"{count} latents were summed up; expected 1 to {MAX_IMAGES}.")
    if totals.strange:
        raise ValueError(
            f"{int(totals.strange)} latent elements are not finite or not in (-64, 64), where "
            "every coordinate of a normalised token lies; look at the encoder's weights."
        )
    # Python's integers, which never overflow: about a second for a million elements.
    value, high, mixed, low = (
        np.asarray(total).astype(object)
        for total in (totals.value, totals.high, totals.mixed, totals.low)
    )
    squares = (high << 2 * LOW_BITS) + (mixed << LOW_BITS + 1) + low
    mean = value / (count << UNIT_BITS)
    variance = (count * squares - value * value) / (count * count << 2 * UNIT_BITS)
    return mean.astype(np.float64), variance.astype(np.float64)
