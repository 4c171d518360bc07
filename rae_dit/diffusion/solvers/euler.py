r"""Euler's method, of order 1.

One step from t to t + d, d < 0:

    x' = x + d v(x, t)                                                                     (1)
"""

from jaxtyping import Array, Float

from rae_dit.diffusion.guidance import Velocity, broadcast_time
from rae_dit.diffusion.solvers.fixed_step import FixedStep


class Euler(FixedStep):
    """Euler's method; one evaluation a step."""

    def step(
        self, velocities: tuple[Velocity, ...], x: Float[Array, "B ..."], t: Array, t_next: Array
    ) -> Float[Array, "B ..."]:
        """Returns x at t_next, by equation (1)."""
        (velocity,) = velocities
        return x + (t_next - t) * velocity(x, broadcast_time(t, x))
