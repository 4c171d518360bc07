"""Settings of a sampler, and the solver that they name."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from rae_dit.diffusion.guidance import Heads, Model, Scale, internal
from rae_dit.diffusion.solvers.base import Solver
from rae_dit.diffusion.solvers.dopri5 import Dopri5
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.diffusion.solvers.heun import Heun
from rae_dit.diffusion.solvers.sde import EulerMaruyama


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Everything that shapes a compiled sampler: one hashable, static argument of `jax.jit`.

    The guidance scale is no part of it: it is traced, so that a sweep over scales compiles once.

    Attributes:
        method: "euler", "heun", "dopri5" or "sde"; "mean_flow" for jumps, which are no solver's.
        steps: points of the "official" grid, or updates of the "full" one.
        grid: "official" or "full", see `time_grid`.
        shift: time shift s, equation (4) in `flow`.
        guidance: "cfg", "autoguidance" or "internal", see `guidance`; "none" for the plain model.
        interval: inclusive (lowest, highest) time of guidance.
        internal_scale: of internal guidance below one of the other two; 1 is none.
        internal_interval: inclusive (lowest, highest) time of that.
        internal_null_scale: of that where there is no class, as in one branch of "cfg"; None for
            `internal_scale`.
        rtol: relative tolerance of "dopri5".
        atol: absolute tolerance of "dopri5".
        diffusion_norm: noise of "sde", w(t) = diffusion_norm t.
        last_step: how "sde" ends: "mean", "euler" or "none".
        last_step_size: time from which it does, in (0, 1).
        precision: "fp8" for products of 8-bit floats in the models' blocks; None for theirs.
    """

    method: str
    steps: int
    grid: str
    shift: float
    guidance: str
    interval: tuple[float, float]
    internal_scale: float
    internal_interval: tuple[float, float]
    rtol: float
    atol: float
    diffusion_norm: float
    last_step: str
    last_step_size: float
    precision: Literal["fp8"] | None = None
    internal_null_scale: float | None = None


def make_solver(options: SamplerOptions) -> Solver:
    """Returns the solver that `options.method` names, with its settings.

    Raises:
        ValueError: unknown method, or a setting that the solver refuses.
    """
    match options.method:
        case "euler":
            return Euler()
        case "heun":
            return Heun()
        case "dopri5":
            return Dopri5(options.rtol, options.atol)
        case "sde":
            return EulerMaruyama(options.diffusion_norm, options.last_step, options.last_step_size)
    raise ValueError(
        f"method: got {options.method!r}; expected 'euler', 'heun', 'dopri5', 'sde' or 'mean_flow'"
    )


def solver_and_times(options: SamplerOptions) -> tuple[Solver, Float[np.ndarray, " T"]]:
    """Returns the solver and its decreasing times.

    Raises:
        ValueError: unknown method, grid or last step; too few steps.
    """
    solver = make_solver(options)
    return solver, solver.times(options.steps, options.shift, grid=options.grid)


def internal_settings(
    options: SamplerOptions, cfg_scale: Scale
) -> tuple[Scale, tuple[float, float]] | None:
    """Returns scale and interval of internal guidance, alone or below another; None for none."""
    if options.guidance == "internal":
        return cfg_scale, options.interval
    if options.internal_scale != 1.0 or options.internal_null_scale not in (None, 1.0):
        return options.internal_scale, options.internal_interval
    return None


def guided_internally(
    model: Model, heads: Heads, options: SamplerOptions, cfg_scale: Scale, *, null_label: int
) -> Model:
    """Returns the model under the internal guidance that is asked for, if any.

    Args:
        model: gives the velocity of the whole network.
        heads: give that of the whole network and of its second head.
        options: see `internal_settings`.
        cfg_scale: scale of guidance "internal".
        null_label: the label that means "no class".
    """
    if (settings := internal_settings(options, cfg_scale)) is None:
        return model
    scale, interval = settings
    own = options.internal_null_scale
    null = None if own is None else (null_label, own)
    return internal(heads, scale=scale, interval=interval, null=null)
