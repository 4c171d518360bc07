"""States on the way from noise to latents, and the clean latents that the model sees in them."""

import dataclasses
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from rae_dit import compiler
from rae_dit.diffusion.mean_flow import Average, jumps
from rae_dit.diffusion.sampler import SamplerOptions, make_solver, solver_and_times
from rae_dit.models.ddt import DDT
from rae_dit.sampling.latents import noise_from
from rae_dit.sampling.mean_flow import METHOD, jump_times
from rae_dit.sampling.velocity import Network, average_velocity, take_apart, velocity_field


class Trajectory(NamedTuple):
    """A few states of a solver, from noise on.

    Attributes:
        times: of the states, decreasing from 1; the last is that of the result.
        states: x_t; the last is the result of the sampler.
        estimates: the clean latents x_t - t v(x_t, t) that the (guided) velocity points to.
    """

    times: Float[np.ndarray, " F"]
    states: Float[Array, "F B h w C"]
    estimates: Float[Array, "F B h w C"]


def sample_trajectory(
    ddt: DDT,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    options: SamplerOptions,
    *,
    cfg_scale: float,
    frames: int,
    guide: DDT | None = None,
    keys: Key[Array, " B"] | None = None,
) -> Trajectory:
    """Integrates as `run_sampler`, which checks the arguments, and keeps states on the way.

    "dopri5" chooses its steps anew from each state that is kept, within its tolerances.

    Args:
        ddt: the model.
        noise: float32 standard normal.
        labels: int32 classes.
        options: of the sampler.
        cfg_scale: guidance scale; 1 is none.
        frames: states to keep, at least 2; fewer where the grid has fewer times.
        guide: the weaker model of AutoGuidance.
        keys: one PRNG key a sample, for a stochastic solver.

    Raises:
        ValueError: unknown method, grid or last step; too few steps; frames < 2.
    """
    if frames < 2:
        raise ValueError(f"frames: got {frames}; expected at least 2, noise and result")
    jumping = options.method == METHOD
    times = jump_times(options) if jumping else solver_and_times(options)[1]
    if cfg_scale == 1.0:
        options, guide = dataclasses.replace(options, guidance="none"), None
    kept = tuple(sorted({round(i) for i in np.linspace(0, len(times) - 1, frames)}))
    network, weaker = take_apart(ddt), None if guide is None else take_apart(guide)
    states, estimates = integrate_in_parts(
        network, weaker, noise, labels, keys, float(cfg_scale), options=options, kept=kept
    )
    shown = times[list(kept)]
    if options.method == "sde" and options.last_step != "none":
        shown[-1] = 0.0  # its last step leads there from the last time of the grid
    return Trajectory(shown, states, estimates)


@compiler.jit(static_argnames=("options", "kept"))
def integrate_in_parts(
    network: Network,
    guide: Network | None,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    keys: Key[Array, " B"] | None,
    cfg_scale: float | Float[Array, ""],
    *,
    options: SamplerOptions,
    kept: tuple[int, ...],
) -> tuple[Float[Array, "F B h w C"], Float[Array, "F B h w C"]]:
    """Runs the compiled part of `sample_trajectory`; `kept` are indices of times."""
    if options.method == METHOD:
        average = average_velocity(network, labels, options)
        return jump_in_parts(average, noise, jump_times(options), kept)
    field = velocity_field(network, guide, labels, cfg_scale, options)
    solver, times = solver_and_times(options)
    on_the_way = make_solver(dataclasses.replace(options, last_step="none"))
    x, states = noise, [noise]
    for first, last in pairwise(kept):
        part = solver if last == kept[-1] else on_the_way
        x = part.integrate(x, times[first : last + 1], field, noise_from(keys, first, x.shape[1:]))
        states.append(x)

    def estimate(pair: tuple[Array, Array]) -> Array:
        state, t = pair
        clean: Array = state - t * field(state, t)
        return clean

    stacked = jnp.stack(states)
    shown = jnp.asarray(times[list(kept)], noise.dtype)
    estimates = jax.lax.map(estimate, (stacked[:-1], shown[:-1]))
    return stacked, jnp.concatenate([estimates, stacked[-1:]])


def jump_in_parts(
    average: Average,
    noise: Float[Array, "B h w C"],
    times: Float[np.ndarray, " T"],
    kept: tuple[int, ...],
) -> tuple[Float[Array, "F B h w C"], Float[Array, "F B h w C"]]:
    """Jumps by average velocities; the clean latents are those of one jump from a state to 0."""
    states = [noise]
    for first, last in pairwise(kept):
        states.append(jumps(average, states[-1], times[first : last + 1]))
    ends = [np.array([times[index], 0.0]) for index in kept[:-1]]
    estimates = [jumps(average, x, pair) for x, pair in zip(states, ends, strict=False)]
    return jnp.stack(states), jnp.stack([*estimates, states[-1]])
