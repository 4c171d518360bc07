"""Distance of a student's samples to its teacher's, from the same noise.

The weighted loss of MeanFlow is nearly constant, and its error is one of short intervals as well as
long ones. What falls as samples in few steps become those of the teacher is the mean squared
distance between a student's jumps and the end of the teacher's trajectory from the same noise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from rae_dit.config import Config
from rae_dit.diffusion.guidance import VelocityField, conditional
from rae_dit.diffusion.mean_flow import jumps
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.objectives.base import Tree
from rae_dit.objectives.teacher import Teacher
from rae_dit.setup import models
from rae_dit.training.hook import Hook, Values
from rae_dit.training.keys import run_keys
from rae_dit.training.sharding import batch_sharding, replicated, with_mesh
from rae_dit.training.state import TrainState

JUMPS = (1, 2, 4)


def endpoint_hook(config: Config, mesh: Mesh, frozen: Tree, teacher: Teacher) -> Hook:
    """Makes the hook that measures "endpoint/N_steps" of the EMA for N of `JUMPS`.

    Noises are fixed, and classes taken in turn. The teacher's endpoints are computed once, at the
    first call.

    Args:
        config: `few_step.endpoint_*`, `metrics.validate_every`.
        mesh: all devices; the number of noises is rounded up to a multiple of them.
        frozen: with the teacher.
        teacher: gives the velocity from `frozen`.
    """
    few = config.few_step
    if not few.endpoint_samples:
        return Hook(None, lambda step, state, batch: {})
    count = -(-few.endpoint_samples // mesh.size) * mesh.size
    grid = models.latent_grid(config)
    shape = (count, grid, grid, config.encoder.hidden_size)
    ddt = nnx.graphdef(models.abstract(models.make_ddt, config))
    times = time_grid(few.endpoint_steps, models.latent_shift(config), grid=few.solver_grid)

    def start() -> tuple[Array, Array]:
        noise = jax.random.normal(run_keys(config.seed).validation, shape)
        inputs = noise, jnp.arange(count) % config.data.num_classes
        return jax.lax.with_sharding_constraint(inputs, batch_sharding(mesh))

    @jax.jit
    @functools.partial(with_mesh, mesh)
    def endpoints(frozen: Tree) -> Float[Array, "B h w C"]:
        noise, labels = start()
        return Euler().integrate(noise, times, VelocityField(conditional(teacher(frozen), labels)))

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    @functools.partial(with_mesh, mesh)
    def distances(ema: Tree, ends: Float[Array, "B h w C"]) -> list[Float[Array, ""]]:
        noise, labels = start()
        network = nnx.merge(ddt, ema)

        def distance(steps: int) -> Array:
            grid = np.linspace(1.0, 0.0, steps + 1)
            found = jumps(lambda z, t, r: network(z, t, labels, r), noise, grid)
            return jnp.mean(jnp.square(found - ends))

        return [distance(steps) for steps in JUMPS]

    @functools.cache
    def known_endpoints() -> Float[Array, "B h w C"]:
        return endpoints(frozen)

    def measure(step: int, state: TrainState, batch: Tree) -> Values:
        found = distances(state.ema, known_endpoints())
        return {
            f"endpoint/{steps}_step{'s' if steps > 1 else ''}": float(value)
            for steps, value in zip(JUMPS, found, strict=True)
        }

    return Hook(config.metrics.validate_every, measure, "validation")
