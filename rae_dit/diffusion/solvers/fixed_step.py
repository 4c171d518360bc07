"""Base of the solvers that take one step between neighboring times.

Guidance may be confined to an interval of times. Since times are known, the steps are cut into runs
of equal guidance, and each run is one `lax.scan`: outside the interval the guided model is never
evaluated.
"""

import abc
import operator
from itertools import pairwise
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rae_dit.diffusion.guidance import Velocity, VelocityField
from rae_dit.diffusion.solvers.base import StepNoise
from rae_dit.diffusion.time_grid import time_grid


class FixedStep(abc.ABC):
    """A `Solver` that is given by the formula of one step.

    Attributes:
        nodes: where in the step (0 its start, 1 its end) the velocity is evaluated.
    """

    nodes: ClassVar[tuple[float, ...]] = (0.0,)

    @abc.abstractmethod
    def step(
        self, velocities: tuple[Velocity, ...], x: Float[Array, "B ..."], t: Array, t_next: Array
    ) -> Float[Array, "B ..."]:
        """Returns x at t_next; `velocities` are those in force at each of the nodes."""

    def times(self, steps: int, shift: float, *, grid: str) -> Float[np.ndarray, " T"]:
        """Returns the times of the grid."""
        return time_grid(steps, shift, grid=grid)

    def integrate(
        self,
        noise: Float[Array, "B ..."],
        times: Float[np.ndarray, " T"],
        field: VelocityField,
        step_noise: StepNoise | None = None,
    ) -> Float[Array, "B ..."]:
        """Returns the state at times[-1], after one step for each pair of neighboring times."""
        x = noise
        for velocities, pairs in equal_guidance_runs(field, times, self.nodes):

            def body(
                x: Array, pair: Array, velocities: tuple[Velocity, ...] = velocities
            ) -> tuple[Array, None]:
                return self.step(velocities, x, pair[0], pair[1]), None

            x, _ = jax.lax.scan(body, x, jnp.asarray(pairs, noise.dtype))
        return x

    def states(
        self,
        noise: Float[Array, "B ..."],
        times: Float[np.ndarray, " T"],
        field: VelocityField,
    ) -> Float[Array, "T B ..."]:
        """Returns the states at all times, the noise first; arguments are those of `integrate`."""
        x, found = noise, [noise[None]]
        for velocities, pairs in equal_guidance_runs(field, times, self.nodes):

            def body(
                x: Array, pair: Array, velocities: tuple[Velocity, ...] = velocities
            ) -> tuple[Array, Array]:
                x = self.step(velocities, x, pair[0], pair[1])
                return x, x

            x, states = jax.lax.scan(body, x, jnp.asarray(pairs, noise.dtype))
            found.append(states)
        return jnp.concatenate(found)


class Run(NamedTuple):
    """Neighboring steps that evaluate the same velocities.

    Attributes:
        velocities: one for each node of the solver.
        pairs: (t, t_next) of each step.
    """

    velocities: tuple[Velocity, ...]
    pairs: list[tuple[float, float]]


def equal_guidance_runs(
    field: VelocityField, times: Float[np.ndarray, " T"], nodes: tuple[float, ...]
) -> list[Run]:
    """Cuts the steps between neighboring times into runs that evaluate the same velocities."""
    runs: list[Run] = []
    for t, t_next in pairwise(times.tolist()):
        velocities = tuple(field.at((1 - node) * t + node * t_next) for node in nodes)
        if not (runs and all(map(operator.is_, runs[-1].velocities, velocities))):
            runs.append(Run(velocities, []))
        runs[-1].pairs.append((t, t_next))
    return runs
