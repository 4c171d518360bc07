r"""Heun's method, of order 2.

One step from t to t + d, d < 0:

    x' = x + d/2 (v(x, t) + v(x + d v(x, t), t + d))                                       (1)
"""

from typing import ClassVar

from jaxtyping import Array, Float

from rae_dit.diffusion.guidance import Velocity, broadcast_time
from rae_dit.diffusion.solvers.fixed_step import FixedStep


class Heun(FixedStep):
    """Heun's method; two evaluations a step."""

    nodes: ClassVar[tuple[float, ...]] = (0.0, 1.0)

    def step(
        self, velocities: tuple[Velocity, ...], x: Float[Array, "B ..."], t: Array, t_next: Array
    ) -> Float[Array, "B ..."]:
        """Returns x at t_next, by equation (1)."""
        here, there = velocities
        first = here(x, broadcast_time(t, x))
        second = there(x + (t_next - t) * first, broadcast_time(t_next, x))
        return x + (t_next - t) / 2 * (first + second)
