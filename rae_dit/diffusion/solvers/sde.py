r"""Euler-Maruyama for the SDE that has the same marginals as the flow.

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

By (2), (8) is also E[x | x_t], Tweedie's formula, which the reference offers as a third choice.

Source: SiT (arXiv 2401.08740), section 3 and appendix; the options are those of bytetriper/RAE
`stage2/transport`, whose last step uses the unshifted time with a state of the shifted one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rae_dit.diffusion.flow import shift_time
from rae_dit.diffusion.guidance import Velocity, VelocityField, broadcast_time
from rae_dit.diffusion.solvers.base import StepNoise
from rae_dit.diffusion.solvers.fixed_step import equal_guidance_runs
from rae_dit.diffusion.time_grid import time_grid


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
    """Euler-Maruyama for equation (4), with a last step to t = 0 that adds no noise.

    Attributes:
        norm: factor of w = norm * t, at least 0; 0 is Euler's method for the flow.
        last_step: "mean", "euler" or "none".
        last_step_size: time left for the last step, in (0, 1).

    Raises:
        ValueError: unknown `last_step`.
    """

    norm: float
    last_step: str
    last_step_size: float

    def __post_init__(self) -> None:
        """Checks the name of the last step."""
        if self.last_step not in ("mean", "euler", "none"):
            raise ValueError(
                f"last_step: got {self.last_step!r}; expected 'mean', 'euler' or 'none'"
            )

    def times(self, steps: int, shift: float, *, grid: str) -> Float[np.ndarray, " T"]:
        """Returns the decreasing times of (6), float64.

        With a last step, the last time is `last_step_size`, from where one more update leads to 0:
        `steps` evaluations. Without one ("none"), the times are those of the "official" grid.

        Args:
            steps: points; at least 2.
            shift: factor s of equation (4) in `flow`.
            grid: not used; this solver has one grid.

        Raises:
            ValueError: too few steps.
        """
        official = time_grid(steps, shift, grid="official")
        if self.last_step == "none":
            return official
        first = shift_time(np.array([self.last_step_size]), 1 / shift)[0]
        return np.asarray(shift_time(np.linspace(1, first, steps), shift))

    def integrate(
        self,
        noise: Float[Array, "B ..."],
        times: Float[np.ndarray, " T"],
        field: VelocityField,
        step_noise: StepNoise | None = None,
    ) -> Float[Array, "B ..."]:
        """Updates by (6) over all pairs of neighboring times, then by (7) or (8).

        Args:
            noise: the state at times[0].
            times: decreasing times.
            field: the velocity; where it is guided, so is the score that follows from it.
            step_noise: number of an update, from 0 -> its standard normal z.

        Returns:
            The state at 0, or at times[-1] if `last_step` is "none".

        Raises:
            ValueError: `step_noise` is None.
        """
        if step_noise is None:
            raise ValueError("keys: got None; expected one PRNG key a sample for method 'sde'")
        x, done = noise, 0
        for (velocity,), pairs in equal_guidance_runs(field, times, nodes=(0.0,)):

            def body(
                x: Array, step: tuple[Array, Array], velocity: Velocity = velocity
            ) -> tuple[Array, None]:
                number, (t, t_next) = step
                size = t - t_next
                mean = x - size * drift(velocity, x, t, self.norm)
                return mean + jnp.sqrt(2 * self.norm * t * size) * step_noise(number), None

            numbers = jnp.arange(done, done + len(pairs))
            x, _ = jax.lax.scan(body, x, (numbers, jnp.asarray(pairs, noise.dtype)))
            done += len(pairs)
        if self.last_step == "none":
            return x
        t = jnp.asarray(times[-1], noise.dtype)
        norm = self.norm if self.last_step == "mean" else 0.0
        return x - t * drift(field.at(float(times[-1])), x, t, norm)


def drift(velocity: Velocity, x: Array, t: Array, norm: float) -> Float[Array, "B ..."]:
    """Returns the drift v - w s, by (5), after one evaluation of the velocity."""
    v = velocity(x, broadcast_time(t, x))
    return v + norm * (x + (1 - t) * v)
