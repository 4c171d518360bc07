r"""Average velocities: one to four jumps from noise to data (MeanFlow).

With the velocity v of a flow from noise at t = 1 to data at t = 0, dz/dt = v(z, t),

    u(z_t, r, t) = 1 / (t - r) * integral from r to t of v(z_s, s) ds,  u(z, t, t) = v(z, t)     (1)
    z_r = z_t - (t - r) u(z_t, r, t)                                    one jump                 (2)
    u = v - (t - r) du/dt,      du/dt = (dz u) v + dt u,  r fixed       MeanFlow's identity      (3)

(3) is (1) times t - r, differentiated in t. With its right-hand side as a constant target, a
network of two times learns jumps without any integration; with two states of a solver's trajectory,

    target = (z_t - z_r) / (t - r)                                                               (4)

is an average velocity already. (2) composes: n jumps reach data from noise on any grid of times.

Source: MeanFlow (arXiv 2505.13447), MF-RAE (arXiv 2511.13019), consistency mid-training (arXiv
2509.24526).
"""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rae_dit.diffusion.guidance import broadcast_time

Average = Callable[
    [Float[Array, "B ..."], Float[Array, " B"], Float[Array, " B"]], Float[Array, "B ..."]
]
"""(z, t, r) -> u(z, r, t)."""


def jumps(
    average: Average, noise: Float[Array, "B ..."], times: Float[np.ndarray, " T"]
) -> Float[Array, "B ..."]:
    """Returns the state at times[-1], after one jump (2) for each pair of neighboring times.

    Args:
        average: one evaluation a jump.
        noise: the state at times[0], float.
        times: decreasing, for example `time_grid(n, 1.0, grid="full")`.
    """

    def body(z: Array, pair: Array) -> tuple[Array, None]:
        t, r = pair
        return z - (t - r) * average(z, broadcast_time(t, z), broadcast_time(r, z)), None

    pairs = jnp.asarray(list(pairwise(times.tolist())), noise.dtype)
    return jax.lax.scan(body, noise, pairs)[0]


def time_derivative(
    average: Average,
    z: Float[Array, "B ..."],
    t: Float[Array, " B"],
    r: Float[Array, " B"],
    velocity: Float[Array, "B ..."],
) -> Float[Array, "B ..."]:
    """Computes du/dt of (3) along the velocity, exactly, by one pass in forward mode."""
    _, derivative = jax.jvp(
        lambda z, t: average(z, t, r), (z, t), (velocity.astype(z.dtype), jnp.ones_like(t))
    )
    return derivative


def average_velocity(
    z_t: Float[Array, "B ..."],
    z_r: Float[Array, "B ..."],
    t: Float[Array, " B"],
    r: Float[Array, " B"],
) -> Float[Array, "B ..."]:
    """Computes (4), the average velocity between two states of a trajectory."""
    return (z_t - z_r) / (t - r).reshape(-1, *(1,) * (z_t.ndim - 1))


def order_times(
    first: Float[Array, " B"], second: Float[Array, " B"], is_interval: Bool[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Returns t, the later of two times, and r, the earlier one in intervals and t elsewhere."""
    t = jnp.maximum(first, second)
    return t, jnp.where(is_interval, jnp.minimum(first, second), t)
