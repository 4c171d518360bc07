r"""What a network predicts, and the velocity that this is.

A network may predict the velocity v or the data x itself. On the path x_t = (1 - t) x + t noise,

    v = (x_t - x) / max(t, 0.05),        x = x_t - max(t, 0.05) v                   (1)

The floor keeps errors near t = 0 from being divided by nothing; above it v is `noise - x`. A loss
of velocities thus weighs an error of x by 1 / max(t, 0.05)^2. Models convert (1) once, so that
solvers, guidance and losses only ever see velocities.

Source: RAEv2 (arXiv 2605.18324), after JiT (arXiv 2511.13720); RAEV2.md 4.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

TIME_FLOOR = 0.05


def velocity_of(
    x: Float[Array, "B ..."], x_t: Float[Array, "B ..."], t: Float[Array, " B"]
) -> Float[Array, "B ..."]:
    """Returns the velocity at x_t that leads to the data x: equation (1), float32."""
    return (x_t - x) / floored(t, x.ndim)


def data_of(
    velocity: Float[Array, "B ..."], x_t: Float[Array, "B ..."], t: Float[Array, " B"]
) -> Float[Array, "B ..."]:
    """Returns the data that a velocity at x_t leads to: equation (1), float32."""
    return x_t - floored(t, velocity.ndim) * velocity


def floored(t: Float[Array, " B"], ndim: int) -> Float[Array, "B ..."]:
    """Returns max(t, 0.05) with trailing axes of one."""
    return jnp.maximum(t, TIME_FLOOR).reshape(-1, *(1,) * (ndim - 1))
