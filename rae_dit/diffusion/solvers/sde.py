r"""Euler-Maruyama: noise is added on the way to data, and the marginals stay what they were.

On the path x_t = (1 - t) x + t e of `flow` the density p of x_t is carried by the velocity v, the
conditional mean of e - x given x_t, and its score is s, the gradient of log p:

    dp/dt = -div(v p)                                                              (1)
    s = -E[e | x_t] / t,     E[e | x_t] = x_t + (1 - t) v                          (2)

(2) because e is standard normal, and because x = x_t + t (x - e) and e = x_t + (1 - t)(e - x).
Since div(s p) is the Laplacian of p, the two terms that any w(t) >= 0 adds to (1) cancel. Run
backwards, with r = 1 - t,

    dp/dr = -div((-v + w s) p) + w laplace(p)                                      (3)

which is the Fokker-Planck equation of a diffusion with the same densities as the flow:

    dx = (-v + w s) dr + sqrt(2 w) dB                                              (4)

We take w = norm * t (the "sigma" form of SiT), for which (2) makes the drift finite at every t:

    w s = -norm (x + (1 - t) v)                                                    (5)

One update from t to t + d, d < 0, with z standard normal, of weak order 1:

    x' = x + d (v - w s) + sqrt(2 w |d|) z                                         (6)

Noise that is added last is never removed. The last update, from a time t > 0 to 0, therefore has
none; with or without the score it is

    mean:   x' = x - t (v - w s)                                                   (7)
    euler:  x' = x - t v                                                           (8)

By (2), (8) is also E[x | x_t], Tweedie's formula, a choice of its own in the reference.

Source: SiT (arXiv 2401.08740), section 3 and appendix; the options are those of bytetriper/RAE
`stage2/transport`, whose last step uses the unshifted time with a state of the shifted one.
"""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rae_dit.diffusion.flow import shift_time
from rae_dit.diffusion.guidance import Velocity
from rae_dit.diffusion.solvers.fixed_step import (
    broadcast,
    runs_of_equal_guidance,
    times,
    velocity_at,
)

Draw = Callable[[Int[Array, ""]], Float[Array, "B ..."]]


def stochastic_times(
    num_steps: int, shift: float, *, last_step: str, last_step_size: float
) -> Float[np.ndarray, " T"]:
    """The decreasing times of (6), float64; with a last step, `num_steps` evaluations in all.

    Args:
        num_steps: points; at least 2.
        shift: factor s of equation (4) in `flow`.
        last_step: "mean" or "euler": the last point is `last_step_size`, from where one more
            update leads to 0; "none": the points are those of the "official" grid.
        last_step_size: time left for the last update, in (0, 1).

    Raises:
        ValueError: too few steps.
    """
    official = times(num_steps, shift, grid="official")
    if last_step == "none":
        return official
    first = shift_time(np.array([last_step_size]), 1 / shift)[0]
    return np.asarray(shift_time(np.linspace(1, first, num_steps), shift))


def euler_maruyama(
    noise: Float[Array, "B ..."],
    times: Float[np.ndarray, " T"],
    *,
    draw: Draw,
    norm: float,
    last_step: str,
    plain: Velocity,
    guided: Velocity | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Float[Array, "B ..."]:
    """Updates (6) over all pairs of neighbouring times, then the last one.

    Args:
        noise: the state at times[0].
        times: from `stochastic_times`.
        draw: number of the update, from 0 -> its standard normal z.
        norm: of w = norm * t, at least 0; 0 is Euler's method for the flow.
        last_step: "mean", "euler" or "none".
        plain: velocity outside the interval.
        guided: velocity at times inside it, from which the score follows too; None for no guidance.
        interval: inclusive (lowest, highest) time of guidance.

    Returns:
        The state at 0, or at times[-1] for "none".

    Raises:
        ValueError: on another last step.
    """
    if last_step not in ("mean", "euler", "none"):
        raise ValueError(f"last_step is {last_step!r}; expected 'mean', 'euler' or 'none'.")
    ask = velocity_at(plain, guided, interval)
    steps = [(ask(t), ask(t), t, t_next) for t, t_next in pairwise(times)]
    x, done = noise, 0
    for velocity, _, stretch in runs_of_equal_guidance(steps):

        def body(
            x: Array, step: tuple[Array, Array], velocity: Velocity = velocity
        ) -> tuple[Array, None]:
            number, (t, t_next) = step
            size = t - t_next
            mean = x - size * drift(velocity, x, t, norm)
            return mean + jnp.sqrt(2 * norm * t * size) * draw(number), None

        numbers = jnp.arange(done, done + len(stretch))
        x, _ = jax.lax.scan(body, x, (numbers, jnp.asarray(stretch, noise.dtype)))
        done += len(stretch)
    if last_step == "none":
        return x
    t = jnp.asarray(times[-1], noise.dtype)
    return x - t * drift(ask(times[-1]), x, t, norm if last_step == "mean" else 0.0)


def drift(velocity: Velocity, x: Array, t: Array, norm: float) -> Float[Array, "B ..."]:
    """The drift v - w s, by (5); asks the velocity once."""
    v = velocity(x, broadcast(t, x))
    return v + norm * (x + (1 - t) * v)
