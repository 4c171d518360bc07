"""Rotary positions of a grid of tokens: angles, and both ways to pair the channels of a head."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Rope = tuple[Float[Array, "N Dh"], Float[Array, "N Dh"]]


def rotary_angles(head_width: int, height: int, length: int) -> Rope:
    """Returns cos and sin of the rotary angles on a `height` x `length` grid, float32 [N, Dh].

    The first half of a head rotates with the *row*, the second with the column; each half holds
    Dh/4 frequencies f_j = 10000^(-2j / (Dh/2)), each repeated for the two members of its pair.

    Source: LightningDiT `VisionRotaryEmbeddingFast` (EVA-02), SEMANTICS 4.5. Positions are not
    rescaled at other resolutions.
    """
    half = head_width // 2
    frequency = 10000.0 ** (-np.arange(0, half, 2, dtype=np.float64) / half)
    row, column = np.meshgrid(np.arange(height), np.arange(length), indexing="ij")
    parts = [np.outer(axis.reshape(-1), frequency).repeat(2, axis=1) for axis in (row, column)]
    angle = np.concatenate(parts, axis=1)
    return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def apply_rope(
    x: Float[Array, "B N H Dh"], cos: Float[Array, "N Dh"], sin: Float[Array, "N Dh"]
) -> Float[Array, "B N H Dh"]:
    """Rotates each pair (x_2i, x_2i+1) by its angle, in float32, and casts back.

    (a, b) -> (a cos - b sin, b cos + a sin): x cos plus the swapped pair times (-sin, sin). A swap
    is one `rev`, whose transpose is itself; stacking the members again costs four times the memory
    traffic in both directions on a GPU (docs/performance.md).
    """
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    tokens, width = cos.shape
    cos, sin = (table.reshape(tokens, 1, width // 2, 2) for table in (cos, sin))
    rotated = pairs * cos + jnp.flip(pairs, -1) * (sin * jnp.array([-1.0, 1.0]))
    return rotated.astype(x.dtype).reshape(x.shape)


def apply_rope_halves(
    x: Float[Array, "B N H Dh"], cos: Float[Array, "N Dh"], sin: Float[Array, "N Dh"]
) -> Float[Array, "B N H Dh"]:
    """Rotates each pair (x_i, x_{i + Dh/2}) by its angle, in float32, and casts back.

    With a and b the halves of a head, (a, b) -> (a cos - b sin, b cos + a sin); the tables hold the
    same angles in both halves. Source: DINOv3 `rope_apply`.
    """
    x32 = x.astype(jnp.float32)
    first, second = jnp.split(x32, 2, axis=-1)
    rotated = x32 * cos[:, None] + jnp.concatenate([-second, first], axis=-1) * sin[:, None]
    return rotated.astype(x.dtype)
