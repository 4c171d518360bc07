"""Conditioning of a DiT^DH: time embedding and adaLN-zero modulation."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from rae_dit.models.layers import Dtype, Linear, make_constant, value_of

FOURIER_FREQUENCIES = 256


class TimeEmbedding(nnx.Module):
    """t in [0, 1] -> [B, D]: Gaussian Fourier features and a two-layer MLP, all in float32.

    Args:
        width: D.
        train_constants: train the frequencies too.
        starts_at_zero: the second layer is zero at initialization.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        width: int,
        *,
        train_constants: bool,
        starts_at_zero: bool = False,
        rngs: nnx.Rngs,
    ):
        frequency = rngs.params.normal((FOURIER_FREQUENCIES,))
        self.frequency = make_constant(frequency, trained=train_constants)
        normal = nnx.initializers.normal(0.02)
        self.fc1 = Linear(
            2 * FOURIER_FREQUENCIES,
            width,
            axes=(None, "embed"),
            kernel_init=normal,
            dtype=jnp.float32,
            rngs=rngs,
        )
        zeros = nnx.initializers.zeros_init()
        self.fc2 = Linear(
            width,
            width,
            axes=("embed", None),
            kernel_init=zeros if starts_at_zero else normal,
            bias_init=zeros if starts_at_zero else None,
            dtype=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B D"]:
        """Embeds times; sine features come before cosine features."""
        angle = 2 * jnp.pi * t.astype(jnp.float32)[:, None] * value_of(self.frequency)
        fourier = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
        return self.fc2(jax.nn.silu(self.fc1(fourier)))


def embed_times(
    t: Float[Array, " B"],
    r: Float[ArrayLike, " B"] | None,
    embedding: TimeEmbedding,
    interval_embedding: TimeEmbedding | None,
) -> Float[Array, "B D"]:
    """Embeds the time t, or t and the length t - r of the interval of two times.

    Raises:
        ValueError: there is an embedding of lengths and no r, or the other way round.
    """
    if interval_embedding is None:
        if r is not None:
            raise ValueError("r: got a time; expected None for a network with one time")
        return embedding(t)
    if r is None:
        raise ValueError("r: got None; expected times: the network has two (interval_embedding)")
    return embedding(t) + interval_embedding(t - jnp.asarray(r))


class Modulation(nnx.Module):
    """Maps a condition to `parts` vectors of the model's width, all zero at initialization."""

    def __init__(self, condition: int, width: int, parts: int, *, dtype: Dtype, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros_init()
        self.linear = Linear(
            condition,
            parts * width,
            axes=("embed", "modulation"),
            kernel_init=zeros,
            bias_init=zeros,
            dtype=dtype,
            rngs=rngs,
        )
        self.parts = parts

    def __call__(self, condition: Float[Array, "B M D"]) -> list[Float[Array, "B M D"]]:
        """Returns the vectors in order."""
        return jnp.split(self.linear(jax.nn.silu(condition)), self.parts, axis=-1)


def modulate(
    x: Float[Array, "B N D"], shift: Float[Array, "B M D"], scale: Float[Array, "B M D"]
) -> Float[Array, "B N D"]:
    """Returns x (1 + scale) + shift; M is 1 (one condition for all tokens) or N (one per token)."""
    return x * (1 + scale) + shift


def check_labels(labels: ArrayLike, null_label: int) -> None:
    """Checks class labels whose values are known; the table's lookup would take the nearest one.

    Args:
        labels: of any shape. Nothing is checked while they are traced, or lie on other hosts.
        null_label: the largest one; it stands for no label.

    Raises:
        ValueError: a label is negative or too large.
    """
    if isinstance(labels, jax.core.Tracer):
        return
    if isinstance(labels, jax.Array) and not labels.is_fully_addressable:
        return
    values = np.asarray(labels)
    wrong = values[(values < 0) | (values > null_label)]
    if wrong.size:
        raise ValueError(
            f"labels: got {wrong.flat[0]}; expected 0 to {null_label - 1}, or {null_label} for none"
        )
