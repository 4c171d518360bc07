r"""Flow matching on a straight path between data and noise.

Time runs from t = 0 (data x) to t = 1 (noise e). A point of the path, its velocity and the loss:

    x_t = (1 - t) x + t e                                                          (1)
    v   = d x_t / dt = e - x                                                       (2)
    L   = mean over the latent's elements of (model(x_t, t) - v)^2                 (3)

At high dimension a given t destroys less of the image, because neighboring elements share
information: to keep the signal-to-noise ratio of a latent with `dimension` elements like that of
one with `base` elements, times are shifted towards noise (SD3, arXiv 2403.03206 section 5.3.2; RAE
paper section 4.2):

    t' = s t / (1 + (s - 1) t),        s = sqrt(dimension / base),  base = 4096     (4)

(4) fixes 0 and 1, and shifting by s and then by 1/s is the identity. The shifted time is both the
time of the path's point and the model's input.

Source: bytetriper/RAE `stage2/transport`, SEMANTICS 4.7.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)

TIME_END = 0.999
"""Largest time before the shift; as in the reference, t = 1 is left out."""


def time_shift(dimension: int, base: int = 4096) -> float:
    """Returns the factor s of equation (4): 6.93 for a 768 x 16 x 16 latent."""
    return (dimension / base) ** 0.5


def shift_time(t: ArrayT, shift: float) -> ArrayT:
    """Shifts times by equation (4): monotone on [0, 1], identity at shift 1."""
    return shift * t / (1 + (shift - 1) * t)


def sample_time(
    key: Key[Array, ""], batch: int, *, distribution: str, shift: float
) -> Float[Array, " batch"]:
    """Draws training times in [0, 1), shifted.

    Args:
        key: PRNG key.
        batch: number of times B.
        distribution: "uniform" on [0, .999), or "logit_normal": sigmoid of N(0, 1), drawn by the
            inverse distribution function.
        shift: factor s of equation (4).

    Returns:
        float32 times.

    Raises:
        ValueError: unknown distribution.
    """
    uniform = jax.random.uniform(key, (batch,))
    match distribution:
        case "uniform":
            t = TIME_END * uniform
        case "logit_normal":
            # The reference truncates at .999, which lies 6.9 deviations out; a float32 uniform
            # ends at 1 - 2^-24, or 5.4 deviations. The floor keeps the quantile of 0 finite.
            quantile = jnp.maximum(uniform, jnp.finfo(jnp.float32).tiny)
            t = jax.nn.sigmoid(jax.scipy.stats.norm.ppf(quantile))
        case _:
            raise ValueError(
                f"time_distribution: got {distribution!r}; expected 'uniform' or 'logit_normal'"
            )
    return shift_time(t, shift)


def interpolate(
    x: Float[Array, "B ..."], noise: Float[Array, "B ..."], t: Float[Array, " B"]
) -> Float[Array, "B ..."]:
    """Returns the point of the path, equation (1): x at t = 0, noise at t = 1."""
    t = t.reshape(-1, *(1,) * (x.ndim - 1))
    return (1 - t) * x + t * noise


def velocity_target(
    x: Float[Array, "B ..."], noise: Float[Array, "B ..."]
) -> Float[Array, "B ..."]:
    """Returns the path's derivative, equation (2); it does not depend on t."""
    return noise - x


def velocity_loss(
    velocity: Float[Array, "B ..."], x: Float[Array, "B ..."], noise: Float[Array, "B ..."]
) -> Float[Array, " B"]:
    """Returns the loss of each sample, equation (3), float32."""
    return squared_error(velocity, velocity_target(x, noise))


def squared_error(
    velocity: Float[Array, "B ..."], target: Float[Array, "B ..."]
) -> Float[Array, " B"]:
    """Returns the mean squared error of each sample, float32."""
    error = velocity.astype(jnp.float32) - target
    return jnp.mean(jnp.square(error), axis=tuple(range(1, target.ndim)))
