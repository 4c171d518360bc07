"""Latents from noise: a DiT^DH, guidance and a solver put together."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key

from rae_dit import compiler
from rae_dit.diffusion.flow import time_shift
from rae_dit.diffusion.mean_flow import jumps
from rae_dit.diffusion.sampler import SamplerOptions, solver_and_times
from rae_dit.diffusion.solvers.base import StepNoise
from rae_dit.models.conditioning import check_labels
from rae_dit.models.ddt import DDT
from rae_dit.sampling.checks import check_guidance, check_inputs
from rae_dit.sampling.mean_flow import METHOD, check_jumps, jump_times
from rae_dit.sampling.velocity import Network, average_velocity, take_apart, velocity_field


def sample_latents(
    ddt: DDT,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    *,
    steps: int,
    method: str = "euler",
    shift: float | None = None,
    cfg_scale: float = 1.0,
    cfg_interval: tuple[float, float] = (0.0, 1.0),
    guide: DDT | None = None,
    guidance: str | None = None,
    internal_scale: float = 1.0,
    internal_interval: tuple[float, float] = (0.0, 1.0),
    internal_null_scale: float | None = None,
    grid: str | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    keys: Key[Array, " B"] | None = None,
    diffusion_norm: float = 1.0,
    last_step: str = "mean",
    last_step_size: float = 0.04,
    precision: Literal["fp8"] | None = None,
) -> Float[Array, "B h w C"]:
    """Goes from noise to latents; one compile per setting, `cfg_scale` is traced.

    Args:
        ddt: the model.
        noise: float32 standard normal; numpy or jax.
        labels: classes 0..K-1, or the null label for none; numpy or jax.
        steps: points of the "official" grid (one update fewer), or updates of the "full" one.
            "dopri5" takes only the last time from the grid and chooses its own steps; "sde" has a
            grid of its own (`EulerMaruyama.times`) and evaluates the model `steps` times.
            "mean_flow" makes `steps` jumps of one evaluation each.
        method: "euler", "heun", "dopri5" or "sde"; "mean_flow" for a network with two times, which
            the others take at r = t.
        shift: time shift s; None for 1 with "mean_flow", and else for sqrt(h w C / 4096), which is
            6.93 for 768 x 16 x 16.
        cfg_scale: 1 is no guidance at all, and costs one evaluation an update.
        cfg_interval: inclusive (lowest, highest) time of guidance.
        guide: a weaker model; guidance is then AutoGuidance instead of classifier-free. It may
            have other widths and depths.
        guidance: what `cfg_scale` and `cfg_interval` are of: "cfg", "autoguidance" or "internal"
            (of a network with a second head; one evaluation an update); None for "cfg", or
            "autoguidance" if there is a guide.
        internal_scale: of internal guidance below one of the other two; 1 is none. It is not
            traced: each value compiles.
        internal_interval: inclusive (lowest, highest) time of that.
        internal_null_scale: of that for CFG's branch without class; None for `internal_scale`.
        grid: "official" (the reference's, ends at t > 0) or "full" (ends at t = 0); None for
            "official", and for "full" with "mean_flow".
        rtol: relative tolerance of "dopri5"; the reference's default.
        atol: absolute tolerance of "dopri5"; the reference's default.
        keys: one PRNG key a sample (`sample_keys`), from which "sde" draws its noise.
        diffusion_norm: how much noise "sde" adds, w(t) = diffusion_norm t; 0 is none.
        last_step: how "sde" ends: "mean", "euler" or "none" (see `diffusion/solvers/sde.py`).
        last_step_size: time from which it does, in (0, 1); the reference's default.
        precision: "fp8" for products of 8-bit floats in the blocks of the models, see
            `models/float8`; None for what the models were made with.

    Returns:
        float32 latents, normalized as in training: `rae.decode` takes them. NaN where "dopri5"
        cannot meet its tolerances in float32.

    Raises:
        ValueError: unknown method, grid, guidance or last step; too few steps; shapes or labels
            that do not fit the model; "sde" without keys; internal guidance of one head; jumps of
            a network with one time, or with guidance.
    """
    for model in (ddt, guide):
        if model is not None:
            check_labels(labels, model.null_label)
    noise, labels = jnp.asarray(noise, jnp.float32), jnp.asarray(labels, jnp.int32)
    jumping = method == METHOD
    default_shift = 1.0 if jumping else time_shift(math.prod(noise.shape[1:]))
    options = SamplerOptions(
        method=method,
        steps=steps,
        grid=grid or ("full" if jumping else "official"),
        shift=default_shift if shift is None else float(shift),
        guidance=guidance or ("cfg" if guide is None else "autoguidance"),
        interval=(float(cfg_interval[0]), float(cfg_interval[1])),
        internal_scale=float(internal_scale),
        internal_interval=(float(internal_interval[0]), float(internal_interval[1])),
        rtol=float(rtol),
        atol=float(atol),
        diffusion_norm=float(diffusion_norm),
        last_step=last_step,
        last_step_size=float(last_step_size),
        precision=precision,
        internal_null_scale=None if internal_null_scale is None else float(internal_null_scale),
    )
    return run_sampler(ddt, noise, labels, options, cfg_scale=cfg_scale, guide=guide, keys=keys)


def run_sampler(
    ddt: DDT,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    options: SamplerOptions,
    *,
    cfg_scale: float,
    guide: DDT | None = None,
    keys: Key[Array, " B"] | None = None,
) -> Float[Array, "B h w C"]:
    """Integrates the flow from noise to latents, as `sample_latents` does.

    Args:
        ddt: the model.
        noise: float32 standard normal.
        labels: int32 classes 0..K-1, or the null label for none.
        options: everything that shapes the compiled program.
        cfg_scale: guidance scale; at 1 the sampler is compiled without guidance.
        guide: the weaker model of `options.guidance` "autoguidance".
        keys: one PRNG key a sample, for a stochastic solver.

    Returns:
        float32 latents.

    Raises:
        ValueError: see `sample_latents`.
    """
    check_inputs(ddt, noise, labels)
    if guide is not None:
        check_inputs(guide, noise, labels)
    check_guidance(ddt, guide, options, cfg_scale)
    # For errors without the note that JAX adds to those of a trace
    if options.method == METHOD:
        check_jumps(ddt, options, cfg_scale)
    else:
        solver_and_times(options)
    if cfg_scale == 1.0:
        options, guide = dataclasses.replace(options, guidance="none"), None
    network, weaker = take_apart(ddt), None if guide is None else take_apart(guide)
    return integrate(network, weaker, noise, labels, keys, float(cfg_scale), options=options)


@compiler.jit(static_argnames="options")
def integrate(
    network: Network,
    guide: Network | None,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    keys: Key[Array, " B"] | None,
    cfg_scale: float | Float[Array, ""],
    *,
    options: SamplerOptions,
) -> Float[Array, "B h w C"]:
    """Runs the compiled part of `run_sampler`; parameters and guidance scale are traced."""
    if options.method == METHOD:
        average = average_velocity(network, labels, options)
        return jumps(average, noise, jump_times(options))
    solver, times = solver_and_times(options)
    return solver.integrate(
        noise,
        times,
        velocity_field(network, guide, labels, cfg_scale, options),
        noise_from(keys, 0, noise.shape[1:]),
    )


def sample_keys(key: Key[Array, ""], numbers: Int[ArrayLike, " B"]) -> Key[Array, " B"]:
    """Derives one key for each sample from the seed's key and the sample's number alone.

    Neither the batch that a sample is in nor the number of devices changes an image then.
    """
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(numbers))


def initial_noise(
    key: Key[Array, ""], numbers: Int[ArrayLike, " B"], shape: tuple[int, int, int]
) -> Float[Array, "B h w C"]:
    """Draws the initial noise of the samples with these numbers, float32 standard normal."""
    return normal_per_key(sample_keys(key, numbers), shape)


def step_noise(
    keys: Key[Array, " B"], step: Int[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "B ..."]:
    """Draws the noise of one update of a stochastic solver, from sample keys and update number."""
    return normal_per_key(jax.vmap(jax.random.fold_in, (0, None))(keys, step), shape)


def noise_from(
    keys: Key[Array, " B"] | None, first: int, shape: tuple[int, ...]
) -> StepNoise | None:
    """Returns the noise of a stochastic solver's updates from number `first` on."""
    if keys is None:
        return None
    return lambda step: step_noise(keys, first + step, shape)


def normal_per_key(keys: Key[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Draws float32 standard normal numbers of a shape for each key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
