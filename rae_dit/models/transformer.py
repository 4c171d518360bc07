"""The pre-norm transformer block that every encoder and decoder here repeats."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, ViTArchitecture
from rae_dit.models.attention import SelfAttention
from rae_dit.models.layers import LayerNorm, compute_dtype
from rae_dit.models.mlp import MLP, SwiGLU, gelu_exact, gelu_tanh
from rae_dit.models.rotary import apply_rope_halves
from rae_dit.models.stack import Stack


class TransformerBlock(nnx.Module):
    """x + scale1 attention(norm1(x)), then x + scale2 mlp(norm2(x)).

    Args:
        architecture: sizes and switches.
        compute: how it computes.
        rngs: where initial values come from.
    """

    def __init__(self, architecture: ViTArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        width, dtype = architecture.hidden_size, compute_dtype(compute)
        scaled = architecture.layer_scale
        self.norm1 = LayerNorm(width, eps=architecture.eps)
        self.norm2 = LayerNorm(width, eps=architecture.eps)
        self.attention = SelfAttention(
            width,
            architecture.num_heads,
            key_bias=architecture.key_bias,
            rotate=apply_rope_halves,
            implementation=compute.attention,
            dtype=dtype,
            rngs=rngs,
        )
        hidden, activation = architecture.intermediate_size, architecture.activation
        self.mlp: MLP | SwiGLU
        if activation == "swiglu":
            self.mlp = SwiGLU(width, hidden, dtype=dtype, rngs=rngs)
        else:
            function = activation_function(activation)
            self.mlp = MLP(width, hidden, activation=function, dtype=dtype, rngs=rngs)
        self.scale1 = nnx.Param(jnp.ones(width)) if scaled else None
        self.scale2 = nnx.Param(jnp.ones(width)) if scaled else None

    def __call__(self, x: Float[Array, "B N D"], *rope: Array) -> Float[Array, "B N D"]:
        """Returns tokens of the same shape and dtype; `rope` is (cos, sin), or nothing."""
        attended = self.attention(self.norm1(x), (rope[0], rope[1]) if rope else None)
        if self.scale1 is not None:
            attended = attended * self.scale1[...].astype(x.dtype)
        x = x + attended
        processed = self.mlp(self.norm2(x))
        if self.scale2 is not None:
            processed = processed * self.scale2[...].astype(x.dtype)
        return x + processed


def make_trunk(architecture: ViTArchitecture, compute: Compute, rngs: nnx.Rngs) -> Stack:
    """Builds `depth` transformer blocks with stacked parameters (see `stack.Stack`).

    Raises:
        ValueError: if the heads do not divide the width.
    """
    width, num_heads = architecture.hidden_size, architecture.num_heads
    if width % num_heads:
        raise ValueError(f"num_heads: got {num_heads}; expected a divisor of the width {width}")

    def make_block(rngs: nnx.Rngs) -> TransformerBlock:
        return TransformerBlock(architecture, compute, rngs=rngs)

    return Stack(
        make_block,
        architecture.depth,
        scan=compute.scan_layers,
        remat=compute.remat,
        dtype=compute_dtype(compute),
        rngs=rngs,
    )


def activation_function(name: str) -> Callable[[Array], Array]:
    """Returns the function that `ViTArchitecture.activation` names.

    Raises:
        ValueError: if it is none of them.
    """
    match name:
        case "gelu":
            return gelu_exact
        case "gelu_tanh":
            return gelu_tanh
    raise ValueError(f"activation: got {name!r}; expected 'gelu' or 'gelu_tanh'")


def prepend(token: Float[Array, "M D"], x: Float[Array, "B N D"]) -> Float[Array, "B M+N D"]:
    """Puts the same tokens before every sequence of a batch, in the sequence's dtype."""
    tokens = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], *token.shape))
    return jax.lax.concatenate([tokens, x], dimension=1)
