"""Sampling with method "mean_flow": what it needs of network and settings, and its times."""

import numpy as np
from jaxtyping import Float

from rae_dit.diffusion.sampler import SamplerOptions
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.models.ddt import DDT

METHOD = "mean_flow"


def jump_times(options: SamplerOptions) -> Float[np.ndarray, " T"]:
    """Returns the n + 1 decreasing times of n = `options.steps` jumps, from 1 to 0.

    Raises:
        ValueError: no jump at all.
    """
    return time_grid(options.steps, options.shift, grid="full")


def check_jumps(ddt: DDT, options: SamplerOptions, cfg_scale: float) -> None:
    """Checks that a network can jump, and that nothing is asked for that jumps cannot do.

    Raises:
        ValueError: the network has one time; guidance, which a network of average velocities has
            learned from its teacher and cannot be given afterwards; another grid.
    """
    if ddt.interval_embedding is None:
        raise ValueError(
            "method: got 'mean_flow'; expected 'euler' or another solver for a network with one "
            "time (interval_embedding is False)"
        )
    for name, scale in (("cfg_scale", cfg_scale), ("internal_scale", options.internal_scale)):
        if scale != 1.0:
            raise ValueError(
                f"{name}: got {scale}; expected 1 with method 'mean_flow': guidance is part of "
                "what the network has learned"
            )
    if options.grid != "full":
        raise ValueError(f"grid: got {options.grid!r}; expected 'full' with method 'mean_flow'")
    jump_times(options)
