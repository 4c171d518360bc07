r"""Dormand-Prince 5(4), which chooses its own steps to meet a tolerance.

A step from t to t + d, d < 0, evaluates the velocity at seven points, of which the first is the
last of the step before:

    k_i = v(x + d sum_{j<i} a_ij k_j, t + c_i d),       i = 0 ... 6               (1)
    x'  = x + d sum_j a_6j k_j                                                    (2)
    e   = d sum_j b_j k_j                                                         (3)

(2) is of order 5 and e estimates its error. Over all N numbers of the whole batch,

    r^2 = 1/N sum (e / (atol + rtol max(|x|, |x'|)))^2                            (4)

The step is accepted if r <= 1 and tried again otherwise, in both cases with

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

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rae_dit.diffusion.guidance import VelocityField
from rae_dit.diffusion.solvers.base import StepNoise
from rae_dit.diffusion.time_grid import time_grid

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
    """Result of `Dopri5.solve`.

    Attributes:
        x: the state at the end; NaN if no step, however small, meets the tolerance.
        evaluations: number of evaluations of the velocity, guided or not; int32.
    """

    x: Float[Array, "B ..."]
    evaluations: Int[Array, ""]


class Point(NamedTuple):
    """A point of the trajectory and the velocity there."""

    t: Float[Array, ""]
    x: Float[Array, "B ..."]
    slope: Float[Array, "B ..."]


class Progress(NamedTuple):
    """State of the integration: the last accepted step, and the size d to try next."""

    before: Point
    middle: Float[Array, "B ..."]
    here: Point
    size: Float[Array, ""]
    evaluations: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Dopri5:
    """Dormand-Prince 5(4); of the times given, it keeps only the first and the last.

    Attributes:
        rtol: tolerated error relative to the state.
        atol: tolerated error besides.
    """

    rtol: float
    atol: float

    def times(self, steps: int, shift: float, *, grid: str) -> Float[np.ndarray, " T"]:
        """Returns the times of the grid; its last one is where the integration ends."""
        return time_grid(steps, shift, grid=grid)

    def integrate(
        self,
        noise: Float[Array, "B ..."],
        times: Float[np.ndarray, " T"],
        field: VelocityField,
        step_noise: StepNoise | None = None,
    ) -> Float[Array, "B ..."]:
        """Returns the state at times[-1]; see `solve`."""
        return self.solve(noise, float(times[0]), float(times[-1]), field).x

    def solve(
        self, noise: Float[Array, "B ..."], start: float, end: float, field: VelocityField
    ) -> Solution:
        """Integrates from `start` down to `end`.

        Args:
            noise: the state at `start`, float.
            start: first time, larger than `end`.
            end: last time.
            field: which of its velocities is in force is decided while running, and only that one
                is evaluated.

        Returns:
            The state at `end` and the number of evaluations.
        """

        def advance(progress: Progress) -> Progress:
            here, size = progress.here, progress.size

            def evaluate(stage: Array, slopes: Array) -> Array:
                x = here.x + size * combine(jnp.asarray(STAGES, slopes.dtype)[stage], slopes)
                t = here.t + size * jnp.asarray(NODES, size.dtype)[stage]
                return slopes.at[stage].set(field(x, t))

            slopes = jnp.zeros((7, *here.x.shape), here.x.dtype).at[0].set(here.slope)
            slopes = jax.lax.fori_loop(1, 7, evaluate, slopes)  # (1)
            x = here.x + size * combine(STAGES[6], slopes)  # (2)
            tolerance = self.atol + self.rtol * jnp.maximum(jnp.abs(here.x), jnp.abs(x))
            ratio = root_mean_square(size * combine(ERROR, slopes) / tolerance)  # (3), (4)
            accepted = Progress(
                before=here,
                middle=here.x + size * combine(MIDDLE, slopes),  # (6)
                here=Point(here.t + size, x, slopes[6]),
                size=size,
                evaluations=progress.evaluations,
            )
            chosen = tree_where(ratio <= 1, accepted, progress)
            return chosen._replace(
                size=next_size(size, ratio), evaluations=progress.evaluations + 6
            )

        t = jnp.asarray(start, jnp.result_type(float))
        first = Point(t, noise, field(noise, t))
        size = -self.first_size(field, first).astype(t.dtype)
        progress = Progress(first, noise, first, size, jnp.int32(2))

        def is_unfinished(progress: Progress) -> Bool[Array, ""]:
            # A size of NaN, or too small to move the clock, ends the loop as well.
            here, size = progress.here, progress.size
            return (here.t > end) & (here.t + size < here.t)

        progress = jax.lax.while_loop(is_unfinished, advance, progress)
        x = jnp.where(progress.here.t > end, jnp.nan, interpolate(progress, end))
        return Solution(x, progress.evaluations)

    def first_size(self, field: VelocityField, first: Point) -> Float[Array, ""]:
        """Returns a positive size for the first step, after one evaluation of the velocity."""
        scale = self.atol + jnp.abs(first.x) * self.rtol
        height = root_mean_square(first.x / scale)
        slope = root_mean_square(first.slope / scale)
        tiny = (height < 1e-5) | (slope < 1e-5)
        trial = jnp.where(tiny, 1e-6, 0.01 * height / jnp.where(tiny, 1.0, slope))
        there = field(first.x - trial * first.slope, first.t - trial)
        bend = root_mean_square((there - first.slope) / scale) / trial
        steepest = jnp.maximum(slope, bend)
        flat = steepest <= 1e-15
        by_error = (0.01 / jnp.where(flat, 1.0, steepest)) ** 0.2
        return jnp.minimum(100 * trial, jnp.where(flat, jnp.maximum(1e-6, trial * 1e-3), by_error))


def next_size(size: Float[Array, ""], ratio: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the size to try next, by equation (5)."""
    lowest = jnp.where(ratio < 1, 1.0, LARGEST_CUT)
    factor = jnp.clip(SAFETY * ratio.astype(size.dtype) ** -0.2, lowest, LARGEST_GROWTH)
    return size * factor


def interpolate(progress: Progress, t: float) -> Float[Array, "B ..."]:
    """Returns the state at a time inside the last step, by equation (7)."""
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
    """Returns a weighted sum; not as a matrix product, whose precision may be reduced."""
    weights = jnp.asarray(weights, slopes.dtype).reshape(-1, *(1,) * (slopes.ndim - 1))
    return jnp.sum(weights * slopes, axis=0)


def root_mean_square(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Returns the root of the mean square over all numbers."""
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def tree_where(condition: Bool[Array, ""], yes: Progress, no: Progress) -> Progress:
    """Selects one of two, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
