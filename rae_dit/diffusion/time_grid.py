"""Time grids of the samplers.

Times t_0 = 1 > t_1 > ... are plain float64 numbers, known before any compile. There are two grids
(SEMANTICS 4.7), both shifted by equation (4) of `flow`:

    official:  tau_i = linspace(0, .999, n),  t_i = shift(1 - tau_i):   n points, n - 1 updates,
               and the last state, at a small t > 0, is returned without another update;
    full:      tau_i = i / n, i = 0..n:                                 n updates, ending at t = 0.
"""

import numpy as np
from jaxtyping import Float

from rae_dit.diffusion.flow import TIME_END, shift_time


def time_grid(steps: int, shift: float, *, grid: str) -> Float[np.ndarray, " T"]:
    """Returns the decreasing times of a grid, float64.

    Args:
        steps: n above; at least 2 for "official", 1 for "full".
        shift: factor s of equation (4) in `flow`.
        grid: "official" (n points) or "full" (n + 1 points).

    Raises:
        ValueError: unknown grid or too few steps.
    """
    match grid:
        case "official":
            if steps < 2:
                raise ValueError(f"steps: got {steps}; expected >= 2 points for grid 'official'")
            tau = np.linspace(0, TIME_END, steps)
        case "full":
            if steps < 1:
                raise ValueError(f"steps: got {steps}; expected >= 1 update for grid 'full'")
            tau = np.linspace(0, 1, steps + 1)
        case _:
            raise ValueError(f"grid: got {grid!r}; expected 'official' or 'full'")
    return np.asarray(shift_time(1 - tau, shift))
