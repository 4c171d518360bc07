"""Blocks whose weights are rounded to 8-bit floats once, for a model that is evaluated many times.

They compute what `Compute.float8` computes, without rounding the same weights again in every
update of a sampler (`float8`).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models import float8
from rae_dit.models.layers import Dtype, Linear
from rae_dit.models.mlp import MLP, SwiGLU
from rae_dit.models.stack import Stack


class Float8Linear(nnx.Module):
    """y = x W + b with W rounded.

    Args:
        kernel: W, with any leading axes, those of a stack.
        bias: b, with the same leading axes.
        dtype: of the result.
    """

    def __init__(
        self, kernel: Float[Array, "... K O"], bias: Float[Array, "... O"], *, dtype: Dtype
    ):
        rounded, scale = float8.quantize(kernel.swapaxes(-1, -2))
        self.kernel, self.scale = nnx.Variable(rounded), nnx.Variable(scale)
        self.bias = nnx.Variable(bias.astype(dtype))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... K"]) -> Float[Array, "... O"]:
        """Transforms the last axis."""
        kernel = (self.kernel[...], self.scale[...])
        rows = float8.quantize(x.astype(self.dtype))
        return float8.multiply(rows, kernel, self.dtype) + self.bias[...]


class Float8SwiGLU(nnx.Module):
    """`SwiGLU` with rounded weights; zeros fill its hidden width up to whole tiles, as there.

    Args:
        mlp: whose weights are rounded.
    """

    def __init__(self, mlp: SwiGLU):
        w12, bias12 = mlp.pad_halves(mlp.w12.kernel[...]), mlp.pad_halves(mlp.w12.bias[...])
        w3 = mlp.pad_inputs(mlp.w3.kernel[...])
        self.w12 = Float8Linear(w12, bias12, dtype=mlp.dtype)
        self.w3 = Float8Linear(w3, mlp.w3.bias[...], dtype=mlp.dtype)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Transforms each token by itself."""
        gate, up = jnp.split(self.w12(x), 2, axis=-1)
        return self.w3(jax.nn.silu(gate) * up)


def quantize_stack(stack: Stack) -> None:
    """Rounds the weights of attention and MLP in all blocks of a stack, in place."""

    def rounded(linear: Linear) -> Float8Linear:
        kernel = linear.kernel[...].astype(stack.dtype)
        return Float8Linear(kernel, linear.bias[...], dtype=stack.dtype)

    attention, mlp = stack.blocks.attention, stack.blocks.mlp
    attention.qkv, attention.proj = rounded(attention.qkv), rounded(attention.proj)
    match mlp:
        case SwiGLU():
            stack.blocks.mlp = Float8SwiGLU(mlp)
        case MLP():
            mlp.fc1, mlp.fc2 = rounded(mlp.fc1), rounded(mlp.fc2)
