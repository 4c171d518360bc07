r"""Samplers: follow dx/dt = velocity(x, t) from noise at t = 1 towards data at t = 0.

Times t_0 = 1 > t_1 > ... come first, as plain float64 numbers: they are known before any compile.
Two grids (SEMANTICS 4.7), both shifted by equation (4) of `flow`:

    official:  tau_i = linspace(0, .999, n),  t_i = shift(1 - tau_i):   n points, n - 1 updates,
               and the last state, at a small t > 0, is returned as it is;
    full:      tau_i = i / n, i = 0..n:                                 n updates, ending at t = 0.

One update from t to t + d, d < 0:

    Euler:  x + d v(x, t)                                                           (1)
    Heun:   x + d/2 (v(x, t) + v(x + d v(x, t), t + d))                             (2)

of order 1 and 2. Guidance may be confined to an interval of times. Since times are known, the
updates are cut into runs of equal guidance, and each run is one `lax.scan`: outside the interval
the guided model is never evaluated.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rae_dit.diffusion.flow import TIME_END, shift_time
from rae_dit.diffusion.guidance import Velocity


class Method(NamedTuple):
    """An update rule.

    Attributes:
        update: (here, there, x, t, t_next) -> x at t_next; `here` and `there` are the velocities in
            force at t and at t_next.
        asks_there: whether `there` is evaluated at all.
    """

    update: Callable[[Velocity, Velocity, Array, Array, Array], Array]
    asks_there: bool


def times(num_steps: int, shift: float, *, grid: str) -> Float[np.ndarray, " T"]:
    """The decreasing times of a grid, float64.

    Args:
        num_steps: n above; at least 2 for "official", 1 for "full".
        shift: factor s of equation (4) in `flow`.
        grid: "official" (n points) or "full" (n + 1 points).

    Raises:
        ValueError: on another grid or too few steps.
    """
    match grid:
        case "official":
            if num_steps < 2:
                raise ValueError(
                    f"sample.num_steps is {num_steps}; the official grid needs 2 points."
                )
            tau = np.linspace(0, TIME_END, num_steps)
        case "full":
            if num_steps < 1:
                raise ValueError(f"sample.num_steps is {num_steps}; expected at least 1.")
            tau = np.linspace(0, 1, num_steps + 1)
        case _:
            raise ValueError(f"sample.grid is {grid!r}; expected 'official' or 'full'.")
    return np.asarray(shift_time(1 - tau, shift))


def euler_update(here: Velocity, there: Velocity, x: Array, t: Array, t_next: Array) -> Array:
    """Equation (1)."""
    return x + (t_next - t) * here(x, broadcast(t, x))


def heun_update(here: Velocity, there: Velocity, x: Array, t: Array, t_next: Array) -> Array:
    """Equation (2)."""
    first = here(x, broadcast(t, x))
    second = there(x + (t_next - t) * first, broadcast(t_next, x))
    return x + (t_next - t) / 2 * (first + second)


EULER = Method(euler_update, asks_there=False)
HEUN = Method(heun_update, asks_there=True)


def broadcast(t: Array, x: Array) -> Float[Array, " B"]:
    """One time for the batch -> one a sample."""
    return jnp.full(x.shape[:1], t, x.dtype)


def integrate(
    method: Method,
    noise: Float[Array, "B ..."],
    times: Sequence[float] | Float[np.ndarray, " T"],
    *,
    plain: Velocity,
    guided: Velocity | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Float[Array, "B ..."]:
    """Updates over all pairs of neighbouring times.

    Args:
        method: `EULER` or `HEUN`.
        noise: the state at times[0].
        times: decreasing times.
        plain: velocity outside the interval.
        guided: velocity at times inside it; None for no guidance at all.
        interval: inclusive (lowest, highest) time of guidance.

    Returns:
        The state at times[-1].
    """
    ask = velocity_at(plain, guided, interval)
    steps = [
        (ask(t), ask(t_next if method.asks_there else t), t, t_next)
        for t, t_next in pairwise(times)
    ]
    x = noise
    for here, there, stretch in runs_of_equal_guidance(steps):

        def body(
            x: Array, pair: Array, here: Velocity = here, there: Velocity = there
        ) -> tuple[Array, None]:
            return method.update(here, there, x, pair[0], pair[1]), None

        x, _ = jax.lax.scan(body, x, jnp.asarray(stretch, noise.dtype))
    return x


def velocity_at(
    plain: Velocity, guided: Velocity | None, interval: tuple[float, float]
) -> Callable[[float], Velocity]:
    """Time -> the velocity in force there; the arguments are those of `integrate`."""

    def ask(t: float) -> Velocity:
        inside = interval[0] <= t <= interval[1]
        return guided if guided is not None and inside else plain

    return ask


def runs_of_equal_guidance(
    steps: Sequence[tuple[Velocity, Velocity, float, float]],
) -> list[tuple[Velocity, Velocity, list[tuple[float, float]]]]:
    """Groups neighbouring updates that ask the same velocities."""
    runs: list[tuple[Velocity, Velocity, list[tuple[float, float]]]] = []
    for here, there, t, t_next in steps:
        if runs and runs[-1][0] is here and runs[-1][1] is there:
            runs[-1][2].append((t, t_next))
        else:
            runs.append((here, there, [(t, t_next)]))
    return runs


def euler(
    velocity: Velocity, noise: Float[Array, "B ..."], times: Float[np.ndarray, " T"]
) -> Float[Array, "B ..."]:
    """Euler's method without guidance."""
    return integrate(EULER, noise, times, plain=velocity)


def heun(
    velocity: Velocity, noise: Float[Array, "B ..."], times: Float[np.ndarray, " T"]
) -> Float[Array, "B ..."]:
    """Heun's method without guidance."""
    return integrate(HEUN, noise, times, plain=velocity)
