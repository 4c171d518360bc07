"""From noise to latents with a DiT^DH: the sampler, the guidance and the model put together."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from rae_dit.diffusion import adaptive, guidance, sampler
from rae_dit.diffusion.flow import time_shift
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
) -> Float[Array, "B h w C"]:
    """Integrates the flow from noise to latents, compiled once per set of settings.

    Args:
        ddt: the model.
        noise: float32 standard normal; numpy or jax.
        labels: classes 0..K-1, or the null label for none; numpy or jax.
        steps: points of the "official" grid (one update fewer), or updates of the "full" one.
            "dopri5" takes only the last time from the grid and chooses its own steps.
        method: "euler", "heun" or "dopri5".
        shift: time shift s; None for sqrt(h w C / 4096), which is 6.93 for 768 x 16 x 16.
        cfg_scale: 1 is no guidance at all, and costs one evaluation an update.
        cfg_interval: inclusive (lowest, highest) time of guidance.
        guide: a weaker model; guidance is then AutoGuidance instead of classifier-free.
        grid: "official" (the reference's, ends at t > 0) or "full" (ends at t = 0).
        rtol: relative tolerance of "dopri5"; the reference's default.
        atol: absolute tolerance of "dopri5"; the reference's default.

    Returns:
        float32 latents, normalised as in training: `rae.decode` takes them. NaN where "dopri5"
        cannot meet its tolerances in float32.

    Raises:
        ValueError: on another method or grid, too few steps, or shapes that do not fit the model.
    """
    noise, labels = jnp.asarray(noise, jnp.float32), jnp.asarray(labels, jnp.int32)
    check_inputs(ddt, noise, labels)
    if shift is None:
        shift = time_shift(noise[0].size)
    if guide is not None:
        check_inputs(guide, noise, labels)
    graph, parameters = nnx.split(ddt)
    guide_graph, guide_parameters = (None, None) if guide is None else nnx.split(guide)
    return run_sampler(
        parameters,
        guide_parameters,
        noise,
        labels,
        graph=graph,
        guide_graph=guide_graph,
        times=tuple(sampler.times(steps, shift, grid=grid).tolist()),
        method=method,
        cfg_scale=float(cfg_scale),
        cfg_interval=(float(cfg_interval[0]), float(cfg_interval[1])),
        tolerances=(float(rtol), float(atol)),
    )


@functools.partial(
    jax.jit,
    static_argnames=(
        *("graph", "guide_graph", "times", "method"),
        *("cfg_scale", "cfg_interval", "tolerances"),
    ),
)
def run_sampler(
    parameters: nnx.State,
    guide_parameters: nnx.State | None,
    noise: Float[Array, "B h w C"],
    labels: Int[Array, " B"],
    *,
    graph: nnx.GraphDef,
    guide_graph: nnx.GraphDef | None,
    times: tuple[float, ...],
    method: str,
    cfg_scale: float,
    cfg_interval: tuple[float, float],
    tolerances: tuple[float, float],
) -> Float[Array, "B h w C"]:
    """The compiled part of `sample_latents`; parameters are arguments, structure is static."""
    ddt = nnx.merge(graph, parameters)
    guided = None
    if guide_graph is not None:
        guide = nnx.merge(guide_graph, guide_parameters)
        guided = guidance.autoguidance(ddt, guide, labels, scale=cfg_scale)
    elif cfg_scale != 1.0:
        guided = guidance.classifier_free(ddt, labels, null_label=ddt.null_label, scale=cfg_scale)
    plain = guidance.conditional(ddt, labels)
    match method:
        case "euler":
            update = sampler.EULER
        case "heun":
            update = sampler.HEUN
        case "dopri5":
            return adaptive.dopri5(
                noise,
                start=times[0],
                end=times[-1],
                plain=plain,
                guided=guided,
                interval=cfg_interval,
                rtol=tolerances[0],
                atol=tolerances[1],
            ).x
        case _:
            raise ValueError(f"method is {method!r}; expected 'euler', 'heun' or 'dopri5'.")
    return sampler.integrate(
        update, noise, times, plain=plain, guided=guided, interval=cfg_interval
    )


def check_inputs(ddt: DDT, noise: Array, labels: Array) -> None:
    """Raises ValueError when noise or labels cannot be this model's."""
    size = ddt.grid * ddt.patch_size
    expected = (len(labels), size, size, ddt.in_channels)
    if noise.shape != expected:
        raise ValueError(
            f"noise has shape {noise.shape}; {len(labels)} labels and this model need {expected}."
        )


def noise_of(
    key: Key[Array, ""], first: int, count: int, shape: tuple[int, int, int]
) -> Float[Array, "B h w C"]:
    """Initial noise of the samples numbered first, first + 1, ...

    Each sample's noise depends on the seed and its own number, so that neither batch size nor
    device count changes an image.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(first, first + count))
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
