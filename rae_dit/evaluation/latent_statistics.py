r"""Exact mean and variance of latents, element by element, by integer sums over a data set.

A latent element is a coordinate of a layer-normalized token of width D, so |x| < sqrt(D). In units
of 2^-32 it is an integer q, split into a high part a and a low part b of 19 bits each:

    q = round(2^32 x),      q = 2^19 a + b,      0 <= b < 2^19,      |x| < 64          (1)

Four 64-bit sums suffice, and none of them can overflow for n < 2^25 images:

    S = sum q,      sum q^2 = 2^38 sum a^2 + 2^20 sum a b + sum b^2 = Q                (2)
    mean = S / (2^32 n),      variance = (n Q - S^2) / (2^64 n^2)                      (3)

Integer addition is associative: the same latents give the same bits for any order, batch size,
number of devices and processes, and interruptions; partial sums merge by addition. (3) is computed
in integers of any length and rounded once, to float64.

Accuracy: a float32 x is a multiple of 2^-32 from |x| = 2^-9 on; smaller ones are rounded by at
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
    """The sums of (2) over the latents so far.

    Attributes:
        images: number of latents, n.
        num_invalid: elements that are not finite or not in (-64, 64); the sums are valid if it is
            0 only.
        sum_q: sum of q.
        sum_aa: sum of a^2.
        sum_ab: sum of a b.
        sum_bb: sum of b^2.
    """

    images: Int64[Array | np.ndarray, ""]
    num_invalid: Int64[Array | np.ndarray, ""]
    sum_q: Int64[Array | np.ndarray, "h w D"]
    sum_aa: Int64[Array | np.ndarray, "h w D"]
    sum_ab: Int64[Array | np.ndarray, "h w D"]
    sum_bb: Int64[Array | np.ndarray, "h w D"]


def zeros(latent_shape: tuple[int, int, int]) -> Totals:
    """Returns the totals of no latents of shape (h, w, D), as numpy arrays."""
    none = np.zeros((), np.int64)
    return Totals(none, none, *np.zeros((4, *latent_shape), np.int64))


def totals_of(latents: Float[Array, "B h w D"], weight: Float[Array, " B"]) -> Totals:
    """Computes the totals of one batch; to be called in `jax.enable_x64(True)`.

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
        raise RuntimeError("jax_enable_x64: got False; expected totals_of in jax.enable_x64(True)")
    a = q >> LOW_BITS
    b = q - (a << LOW_BITS)
    return Totals(
        images=jnp.sum(weight > 0, dtype=jnp.int64),
        num_invalid=jnp.sum(counts & ~usable, dtype=jnp.int64),
        sum_q=jnp.sum(q, axis=0),
        sum_aa=jnp.sum(a * a, axis=0),
        sum_ab=jnp.sum(a * b, axis=0),
        sum_bb=jnp.sum(b * b, axis=0),
    )


def merge(one: Totals, other: Totals) -> Totals:
    """Merges the totals of two disjoint sets of latents, exactly."""
    return jax.tree.map(lambda a, b: a + b, one, other)


def mean_and_variance(
    totals: Totals,
) -> tuple[Float64[np.ndarray, "h w D"], Float64[np.ndarray, "h w D"]]:
    """Computes mean and biased variance (as a batch norm keeps it), equations (3).

    Raises:
        ValueError: there are no latents, too many, or invalid elements among them.
    """
    count = int(totals.images)
    if not 0 < count <= MAX_IMAGES:
        raise ValueError(f"images: got {count} latents; expected 1 to {MAX_IMAGES}")
    if totals.num_invalid:
        raise ValueError(
            f"latents: got {int(totals.num_invalid)} elements that are not finite or not in "
            "(-64, 64); expected normalized tokens. Check the encoder's weights"
        )
    # Python integers never overflow; about a second for a million elements.
    q, aa, ab, bb = (
        np.asarray(total).astype(object)
        for total in (totals.sum_q, totals.sum_aa, totals.sum_ab, totals.sum_bb)
    )
    squares = (aa << 2 * LOW_BITS) + (ab << LOW_BITS + 1) + bb
    mean = q / (count << UNIT_BITS)
    variance = (count * squares - q * q) / (count * count << 2 * UNIT_BITS)
    return mean.astype(np.float64), variance.astype(np.float64)
