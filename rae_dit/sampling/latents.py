"""From noise to latents with a DiT^DH: the sampler, the guidance and the model put together."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int, Key

from rae_dit import compiler
from rae_dit.diffusion import guidance
from rae_dit.diffusion.flow import time_shift
from rae_dit.diffusion.solvers import dopri5, fixed_step, sde
from rae_dit.models.ddt import DDT


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
    grid: str = "official",
    rtol: float = 1e-3,
    atol: float = 1e-6,
    keys: Key[Array, " B"] | None = None,
    diffusion_norm: float = 1.0,
    last_step: str = "mean",
    last_step_size: float = 0.04,
) -> Float[Array, "B h w C"]:
    """Integrates the flow from noise to latents, compiled once per set of settings but the scale.

    Args:
        ddt: the model.
        noise: float32 standard normal; numpy or jax.
        labels: classes 0..K-1, or the null label for none; numpy or jax.
        steps: points of the "official" grid (one update fewer), or updates of the "full" one.
            "dopri5" takes only the last time from the grid and chooses its own steps; "sde" has a
            grid of its own (`sde.stochastic_times`) and evaluates the model so many times.
        method: "euler", "heun", "dopri5" or "sde".
        shift: time shift s; None for sqrt(h w C / 4096), which is 6.93 for 768 x 16 x 16.
        cfg_scale: 1 is no guidance at all, and costs one evaluation an update.
        cfg_interval: inclusive (lowest, highest) time of guidance.
        guide: a weaker model; guidance is then AutoGuidance instead of classifier-free. It may
            have other widths and depths.
        grid: "official" (the reference's, ends at t > 0) or "full" (ends at t = 0).
        rtol: relative tolerance of "dopri5"; the reference's default.
        atol: absolute tolerance of "dopri5"; the reference's default.
        keys: one PRNG key a sample, from which "sde" draws the noise of its updates (`keys_of`).
        diffusion_norm: how much noise "sde" adds, w(t) = diffusion_norm t; 0 is none.
        last_step: how "sde" ends: "mean", "euler" or "none" (see `diffusion/solvers/sde.py`).
        last_step_size: time from which it does, in (0, 1); the reference's default.

    Returns:
        float32 latents, normalised as in training: `rae.decode` takes them. NaN where "dopri5"
        cannot meet its tolerances in float32.

    Raises:
        ValueError: on another method or grid, too few steps, shapes that do not fit the model, or
            "sde" without keys.
    """
    noise, labels = jnp.asarray(noise, jnp.float32), jnp.asarray(labels, jnp.int32)
    check_inputs(ddt, noise, labels)
    if shift is None:
        shift = time_shift(math.prod(noise.shape[1:]))
    if guide is not None:
        check_inputs(guide, noise, labels)
    if cfg_scale == 1.0:
        guide = None
    if method == "sde":
        if keys is None:
            raise ValueError("method is 'sde' and keys is None; expected one PRNG key a sample.")
        times = sde.stochastic_times(
            steps, shift, last_step=last_step, last_step_size=last_step_size
        )
    else:
        times, keys = fixed_step.times(steps, shift, grid=grid), None
    graph, parameters = nnx.split(ddt)
    guide_graph, guide_parameters = (None, None) if guide is None else nnx.split(guide)
    return run_sampler(
        parameters,
        guide_parameters,
        noise,
        labels,
        keys,
        float(cfg_scale),
        is_guided=cfg_scale != 1.0,
        graph=graph,
        guide_graph=guide_graph,
        times=tuple(times.tolist()),
        method=method,
        cfg_interval=(float(cfg_interval[0]), float(cfg_interval[1])),
        tolerances=(float(rtol), float(atol)),
        diffusion_norm=float(diffusion_norm),
        last_step=last_step,
    )


@compiler.jit(
    static_argnames=(
        *("is_guided", "graph", "guide_graph", "times", "method"),
        *("cfg_interval", "tolerances", "diffusion_norm", "last_step"),
    ),
)
def run_sampler(
    parameters: nnx.State,
    guide_parameters: nnx.State | None,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    keys: Key[Array, " B"] | None,
    cfg_scale: float | Float[Array, ""],
    *,
    is_guided: bool,
    graph: nnx.GraphDef,
    guide_graph: nnx.GraphDef | None,
    times: tuple[float, ...],
    method: str,
    cfg_interval: tuple[float, float],
    tolerances: tuple[float, float],
    diffusion_norm: float,
    last_step: str,
) -> Float[Array, "B h w C"]:
    """The compiled part of `sample_latents`.

    Parameters and the guidance scale are arguments, what shapes the program is static: a sweep over
    scales compiles once.
    """
    ddt = merge_for_loop(graph, parameters)
    guided = None
    if guide_graph is not None:
        guide = merge_for_loop(guide_graph, guide_parameters)
        guided = guidance.autoguidance(ddt, guide, labels, scale=cfg_scale)
    elif is_guided:
        guided = guidance.classifier_free(ddt, labels, null_label=ddt.null_label, scale=cfg_scale)
    plain = guidance.conditional(ddt, labels)
    match method:
        case "euler":
            update = fixed_step.EULER
        case "heun":
            update = fixed_step.HEUN
        case "dopri5":
            return dopri5.dopri5(
                noise,
                start=times[0],
                end=times[-1],
                plain=plain,
                guided=guided,
                interval=cfg_interval,
                rtol=tolerances[0],
                atol=tolerances[1],
            ).x
        case "sde" if keys is not None:
            return sde.euler_maruyama(
                noise,
                np.asarray(times),
                draw=lambda step: step_noise(keys, step, noise.shape[1:]),
                norm=diffusion_norm,
                last_step=last_step,
                plain=plain,
                guided=guided,
                interval=cfg_interval,
            )
        case _:
            raise ValueError(f"method is {method!r}; expected 'euler', 'heun', 'dopri5' or 'sde'.")
    return fixed_step.integrate(
        update, noise, times, plain=plain, guided=guided, interval=cfg_interval
    )


def merge_for_loop(graph: nnx.GraphDef, parameters: nnx.State) -> DDT:
    """The model, with what every evaluation would cast anew already cast."""
    ddt = nnx.merge(graph, parameters)
    ddt.backbone.cast_matrices()
    ddt.head.cast_matrices()
    return ddt


def check_inputs(ddt: DDT, noise: Array, labels: Array) -> None:
    """Raises ValueError when noise or labels cannot be this model's."""
    size = ddt.grid * ddt.patch_size
    expected = (len(labels), size, size, ddt.in_channels)
    if noise.shape != expected:
        raise ValueError(
            f"noise has shape {noise.shape}; {len(labels)} labels and this model need {expected}."
        )


def keys_of(key: Key[Array, ""], numbers: Int[ArrayLike, " B"]) -> Key[Array, " B"]:
    """One key for each sample, from the seed's key and the sample's number alone.

    So neither the batch that a sample is in nor the number of devices changes an image.
    """
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(numbers))


def noise_of(
    key: Key[Array, ""], numbers: Int[ArrayLike, " B"], shape: tuple[int, int, int]
) -> Float[Array, "B h w C"]:
    """Initial noise of the samples with these numbers, float32 standard normal."""
    return normal_of(keys_of(key, numbers), shape)


def step_noise(
    keys: Key[Array, " B"], step: Int[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "B ..."]:
    """Noise of one update of "sde"; each sample's depends on its key and the update's number."""
    return normal_of(jax.vmap(jax.random.fold_in, (0, None))(keys, step), shape)


def normal_of(keys: Key[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Standard normal numbers, a key a sample."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
