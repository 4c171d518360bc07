"""The pre-norm transformer block that every encoder and decoder here repeats."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.attention import SelfAttention
from rae_dit.models.layers import MLP, Dtype, LayerNorm
from rae_dit.models.stack import Stack


class TransformerBlock(nnx.Module):
    """x + scale1 attention(norm1(x)), then x + scale2 mlp(norm2(x)).

    Args:
        width: model width D.
        num_heads: heads; they divide D.
        intermediate_size: hidden width of the MLP.
        activation: pointwise function of the MLP.
        eps: added to the variance in both norms.
        layer_scale: learn one factor a channel for each branch (DINOv2), or none.
        attention: implementation (see `attention.dot_product_attention`).
        dtype: compute dtype.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        intermediate_size: int,
        activation: Callable[[Array], Array],
        eps: float,
        layer_scale: bool,
        attention: str,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.norm1 = LayerNorm(width, eps=eps)
        self.norm2 = LayerNorm(width, eps=eps)
        self.attention = SelfAttention(
            width, num_heads, implementation=attention, dtype=dtype, rngs=rngs
        )
        self.mlp = MLP(width, intermediate_size, activation=activation, dtype=dtype, rngs=rngs)
        self.scale1 = nnx.Param(jnp.ones(width)) if layer_scale else None
        self.scale2 = nnx.Param(jnp.ones(width)) if layer_scale else None

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Runs the block."""
        attended = self.attention(self.norm1(x))
        if self.scale1 is not None:
            attended = attended * self.scale1[...].astype(x.dtype)
        x = x + attended
        processed = self.mlp(self.norm2(x))
        if self.scale2 is not None:
            processed = processed * self.scale2[...].astype(x.dtype)
        return x + processed


def make_trunk(
    width: int,
    depth: int,
    num_heads: int,
    *,
    intermediate_size: int,
    activation: Callable[[Array], Array],
    eps: float,
    layer_scale: bool,
    attention: str,
    scan_layers: bool,
    remat: str,
    dtype: Dtype,
    rngs: nnx.Rngs,
) -> Stack:
    """`depth` transformer blocks with stacked parameters (see `layers.Stack`).

    Raises:
        ValueError: if the heads do not divide the width.
    """
    if width % num_heads:
        raise ValueError(
            f"{num_heads} heads do not divide the width {width}; choose a divisor of {width}."
        )

    def make_block(rngs: nnx.Rngs) -> TransformerBlock:
        return TransformerBlock(
            width,
            num_heads,
            intermediate_size=intermediate_size,
            activation=activation,
            eps=eps,
            layer_scale=layer_scale,
            attention=attention,
            dtype=dtype,
            rngs=rngs,
        )

    return Stack(make_block, depth, scan=scan_layers, remat=remat, dtype=dtype, rngs=rngs)


def prepend(token: Float[Array, "M D"], x: Float[Array, "B N D"]) -> Float[Array, "B M+N D"]:
    """Puts the same tokens before every sequence of a batch, in the sequence's dtype."""
    tokens = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], *token.shape))
    return jax.lax.concatenate([tokens, x], dimension=1)
