"""Protocol of the solvers of dx/dt = velocity(x, t), from noise at t = 1 towards data at t = 0."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int

from rae_dit.diffusion.guidance import VelocityField

StepNoise = Callable[[Int[Array, ""]], Float[Array, "B ..."]]
"""Number of an update, from 0 -> its standard normal noise."""


@runtime_checkable
class Solver(Protocol):
    """A numerical method; its own settings, if it has any, are its attributes."""

    def times(self, steps: int, shift: float, *, grid: str) -> Float[np.ndarray, " T"]:
        """Returns decreasing times, float64; called before the sampler is compiled.

        Args:
            steps: number of points or updates, as the grid defines it.
            shift: factor s of equation (4) in `flow`.
            grid: a name that `time_grid` knows.

        Raises:
            ValueError: unknown grid or too few steps.
        """

    def integrate(
        self,
        noise: Float[Array, "B ..."],
        times: Float[np.ndarray, " T"],
        field: VelocityField,
        step_noise: StepNoise | None = None,
    ) -> Float[Array, "B ..."]:
        """Returns the state at the end of the integration.

        Args:
            noise: the state at times[0], float.
            times: decreasing times, for example those of the method above.
            field: the velocity, guided where it is to be.
            step_noise: noise of a stochastic solver's updates; others do not use it.

        Raises:
            ValueError: the solver is stochastic and `step_noise` is None.
        """
