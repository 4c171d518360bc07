r"""Dormand-Prince 5(4): an integrator that chooses its own steps to meet a tolerance.

A step from t to t + d, d < 0, asks the velocity at seven points, of which the first is the last of
the step before:

    k_i = v(x + d sum_{j<i} a_ij k_j, t + c_i d),       i = 0 ... 6               (1)
    x'  = x + d sum_j a_6j k_j                                                    (2)
    e   = d sum_j b_j k_j                                                         (3)

(2) is of order 5 and e estimates its error. Over all N numbers of the whole batch,

    r^2 = 1/N sum (e / (atol + rtol max(|x|, |x'|)))^2                            (4)

The step is taken if r <= 1 and tried again otherwise, in both cases with

    d' = d min(10, max(.9 r^(-1/5), 1 if r < 1 else .2))                          (5)

Steps are not cut to end at the last time: the final one goes past it (which may be past t = 0), and
the state is read off the polynomial of degree 4 through x, its middle m, x' and the slopes at both
ends. With u in [0, 1] the share of the step,

    m    = x + d sum_j m_j k_j                                                    (6)
    x(u) = x + d k_0 u + p u^2 + q u^3 + s u^4                                    (7)

with p, q, s such that x(1/2) = m, x(1) = x' and x'(1) = d k_6. The first step's size follows
Hairer, Nørsett and Wanner, Solving ODEs I, section II.4.

Since (4) is taken over the whole batch, a sample depends on the others in it, within the tolerance.

Source: torchdiffeq 0.2.5 `dopri5`, which the reference calls; equal to it step by step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rae_dit.diffusion.guidance import Velocity
from rae_dit.diffusion.solvers.fixed_step import broadcast

NODES = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])  # c
STAGES = np.zeros((7, 7))  # a
STAGES[1, :1] = 1 / 5
STAGES[2, :2] = 3 / 40, 9 / 40
STAGES[3, :3] = 44 / 45, -56 / 15, 32 / 9
STAGES[4, :4] = 19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729
STAGES[5, :5] = 9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656
STAGES[6, :6] = 35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84
# b: order 5 minus the embedded order 4, in Shampine's choice of the latter
FOURTH = np.array([1951 / 21600, 0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60])
ERROR = STAGES[6] - FOURTH
MIDDLE = 0.5 * np.array(
    [
        6025192743 / 30085553152,
        0,
        51252292925 / 65400821598,
        -2691868925 / 45128329728,
        187940372067 / 1594534317056,
        -1776094331 / 19743644256,
        11237099 / 235043384,
    ]
)
SAFETY, LARGEST_GROWTH, LARGEST_CUT = 0.9, 10.0, 0.2


class Solution(NamedTuple):
    """What `dopri5` returns.

    Attributes:
        x: the state at the end; NaN if no step, however small, meets the tolerance.
        evaluations: how often the velocity was asked, guided or not; int32.
    """

    x: Float[Array, "B ..."]
    evaluations: Int[Array, ""]


class Point(NamedTuple):
    """A place on the trajectory."""

    t: Float[Array, ""]
    x: Float[Array, "B ..."]
    slope: Float[Array, "B ..."]


class Progress(NamedTuple):
    """Where the integration stands: the last step taken, and the size d to try next."""

    before: Point
    middle: Float[Array, "B ..."]
    here: Point
    size: Float[Array, ""]
    evaluations: Int[Array, ""]


def dopri5(
    noise: Float[Array, "B ..."],
    *,
    start: float,
    end: float,
    plain: Velocity,
    guided: Velocity | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    rtol: float,
    atol: float,
) -> Solution:
    """Integrates from `start` down to `end`.

    Args:
        noise: the state at `start`, float.
        start: first time, larger than `end`.
        end: last time.
        plain: velocity outside the interval.
        guided: velocity at times inside it; None for no guidance at all. Which one is asked is
            decided while running, and only that one is evaluated.
        interval: inclusive (lowest, highest) time of guidance.
        rtol: tolerated error relative to the state.
        atol: tolerated error besides.

    Returns:
        The state at `end` and the number of evaluations.
    """

    def velocity(x: Array, t: Array) -> Array:
        if guided is None:
            return plain(x, broadcast(t, x))
        inside = (interval[0] <= t) & (t <= interval[1])
        return jax.lax.cond(inside, guided, plain, x, broadcast(t, x))

    def advance(progress: Progress) -> Progress:
        here, size = progress.here, progress.size

        def ask(stage: Array, slopes: Array) -> Array:
            x = here.x + size * combine(jnp.asarray(STAGES, slopes.dtype)[stage], slopes)
            t = here.t + size * jnp.asarray(NODES, size.dtype)[stage]
            return slopes.at[stage].set(velocity(x, t))

        slopes = jnp.zeros((7, *here.x.shape), here.x.dtype).at[0].set(here.slope)
        slopes = jax.lax.fori_loop(1, 7, ask, slopes)  # (1)
        x = here.x + size * combine(STAGES[6], slopes)  # (2)
        tolerance = atol + rtol * jnp.maximum(jnp.abs(here.x), jnp.abs(x))
        ratio = root_mean_square(size * combine(ERROR, slopes) / tolerance)  # (3), (4)
        taken = Progress(
            before=here,
            middle=here.x + size * combine(MIDDLE, slopes),  # (6)
            here=Point(here.t + size, x, slopes[6]),
            size=size,
            evaluations=progress.evaluations,
        )
        chosen = choose(ratio <= 1, taken, progress)
        return chosen._replace(size=next_size(size, ratio), evaluations=progress.evaluations + 6)

    t = jnp.asarray(start, jnp.result_type(float))
    first = Point(t, noise, velocity(noise, t))
    size = -first_size(velocity, first, rtol=rtol, atol=atol).astype(t.dtype)
    progress = Progress(first, noise, first, size, jnp.int32(2))

    def unfinished(progress: Progress) -> Bool[Array, ""]:
        # A size of NaN, or too small to move the clock, ends the loop as well.
        here, size = progress.here, progress.size
        return (here.t > end) & (here.t + size < here.t)

    progress = jax.lax.while_loop(unfinished, advance, progress)
    x = jnp.where(progress.here.t > end, jnp.nan, interpolate(progress, end))
    return Solution(x, progress.evaluations)


def next_size(size: Float[Array, ""], ratio: Float[Array, ""]) -> Float[Array, ""]:
    """Equation (5)."""
    lowest = jnp.where(ratio < 1, 1.0, LARGEST_CUT)
    factor = jnp.clip(SAFETY * ratio.astype(size.dtype) ** -0.2, lowest, LARGEST_GROWTH)
    return size * factor


def first_size(velocity: Velocity, first: Point, *, rtol: float, atol: float) -> Float[Array, ""]:
    """A positive size for the first step; asks the velocity once, a little further on."""
    scale = atol + jnp.abs(first.x) * rtol
    height = root_mean_square(first.x / scale)
    slope = root_mean_square(first.slope / scale)
    tiny = (height < 1e-5) | (slope < 1e-5)
    trial = jnp.where(tiny, 1e-6, 0.01 * height / jnp.where(tiny, 1.0, slope))
    there = velocity(first.x - trial * first.slope, first.t - trial)
    bend = root_mean_square((there - first.slope) / scale) / trial
    steepest = jnp.maximum(slope, bend)
    flat = steepest <= 1e-15
    by_error = (0.01 / jnp.where(flat, 1.0, steepest)) ** 0.2
    return jnp.minimum(100 * trial, jnp.where(flat, jnp.maximum(1e-6, trial * 1e-3), by_error))


def interpolate(progress: Progress, t: float) -> Float[Array, "B ..."]:
    """Equation (7) at a time inside the last step."""
    before, middle, after = progress.before, progress.middle, progress.here
    size = after.t - before.t
    u = (t - before.t) / size
    first, last = size * before.slope, size * after.slope
    s = 2 * (last - first) - 8 * (after.x + before.x) + 16 * middle
    q = 5 * first - 3 * last + 18 * before.x + 14 * after.x - 32 * middle
    p = last - 4 * first - 11 * before.x - 5 * after.x + 16 * middle
    return before.x + u * (first + u * (p + u * (q + u * s)))


def combine(
    weights: Float[np.ndarray, " 7"] | Float[Array, " 7"], slopes: Float[Array, "7 B ..."]
) -> Float[Array, "B ..."]:
    """Weighted sum of the slopes; no matrix product, whose precision may be reduced."""
    weights = jnp.asarray(weights, slopes.dtype).reshape(-1, *(1,) * (slopes.ndim - 1))
    return jnp.sum(weights * slopes, axis=0)


def root_mean_square(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Over all numbers."""
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def choose(condition: Bool[Array, ""], yes: Progress, no: Progress) -> Progress:
    """One or the other, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
