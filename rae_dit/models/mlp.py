"""MLPs of transformer blocks, plain and gated, and their activations."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models import float8
from rae_dit.models.layers import Axes, Dtype, Linear

ALIGNMENT = 128  # channels; tile width of tensor cores and TPU lanes
WIDE = 8 * ALIGNMENT  # hidden channels from which alignment pays for the zeros


def gelu_exact(x: Array) -> Array:
    """Computes x Phi(x) through erf in float32: torch's default GELU.

    `jax.nn.gelu` defaults to the tanh approximation, and its exact form goes through erfc, which
    costs an exponential and a branch more.
    """
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * math.sqrt(0.5)))).astype(x.dtype)


def gelu_tanh(x: Array) -> Array:
    """Computes the tanh approximation of GELU (`gelu_pytorch_tanh`): SigLIP, DiT without SwiGLU."""
    return jax.nn.gelu(x, approximate=True)


class MLP(nnx.Module):
    """Two linear layers with a pointwise activation between them."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: Callable[[Array], Array],
        dtype: Dtype,
        use_float8: bool = False,
        rngs: nnx.Rngs,
    ):
        def linear(inputs: int, outputs: int, axes: Axes) -> Linear:
            return Linear(inputs, outputs, axes=axes, dtype=dtype, use_float8=use_float8, rngs=rngs)

        self.fc1 = linear(width, hidden, ("embed", "mlp"))
        self.fc2 = linear(hidden, width, ("mlp", "embed"))
        self.activation = activation

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Transforms each token by itself."""
        return self.fc2(self.activation(self.fc1(x)))


class SwiGLU(nnx.Module):
    """w3(silu(x w1) * (x w2)), with w1 and w2 in one kernel (gate first), biases everywhere.

    The reference's wide head has 5461 hidden channels, which no tensor core divides: products run
    with zeros up to a multiple of 128. silu(0) 0 = 0, so that they change no result, and 3 % of a
    training step is saved (docs/performance.md). Parameters keep their sizes.

    Source: LightningDiT `SwiGLUFFN`; arXiv 2002.05202.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        dtype: Dtype,
        use_float8: bool = False,
        rngs: nnx.Rngs,
    ):
        self.w12 = Linear(
            width, 2 * hidden, axes=("embed", "mlp"), matrices=2, dtype=dtype, rngs=rngs
        )
        self.w3 = Linear(hidden, width, axes=("mlp", "embed"), dtype=dtype, rngs=rngs)
        self.padding = -hidden % ALIGNMENT if hidden > WIDE else 0
        self.dtype = dtype
        self.use_float8 = use_float8

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Transforms each token by itself."""
        linear = float8.linear if self.use_float8 else _linear
        w12, bias12 = self.pad_halves(self.w12.kernel[...]), self.pad_halves(self.w12.bias[...])
        w3, bias3 = self.pad_inputs(self.w3.kernel[...]), self.w3.bias[...].astype(self.dtype)
        gate, up = jnp.split(linear(x.astype(self.dtype), w12, bias12), 2, axis=-1)
        return linear(jax.nn.silu(gate) * up, w3, bias3)

    def pad_halves(self, parameter: Float[Array, "... H"]) -> Float[Array, "... P"]:
        """Appends zeros to each half of the last axis; casts to the compute dtype."""
        *leading, both = parameter.shape
        halves = parameter.astype(self.dtype).reshape(*leading, 2, both // 2)
        none = [(0, 0)] * (halves.ndim - 1)
        return jnp.pad(halves, [*none, (0, self.padding)]).reshape(*leading, -1)

    def pad_inputs(self, kernel: Float[Array, "... H D"]) -> Float[Array, "... P D"]:
        """Appends zeros to the inputs of a kernel; casts it to the compute dtype."""
        none = [(0, 0)] * (kernel.ndim - 2)
        return jnp.pad(kernel.astype(self.dtype), [*none, (0, self.padding), (0, 0)])


def _linear(
    x: Float[Array, "... K"], kernel: Float[Array, "K O"], bias: Float[Array, " O"]
) -> Float[Array, "... O"]:
    """Computes x W + b."""
    return x @ kernel + bias
