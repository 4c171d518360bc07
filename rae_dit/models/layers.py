"""Layers shared by all transformers: Linear, norms, patches, position embeddings.

Three conventions hold for all of them:

* parameters are float32; `dtype` is the compute dtype of matrix products, while norms, RoPE and
  softmax work in float32 and cast back;
* kernels are stored [in, out] and carry the *names* of their axes as metadata
  (`axes=("embed", "mlp")`); training/sharding maps names to mesh axes. How many matrices a
  parameter joins (`matrices=3` for q|k|v) rides along, for training/muon;
* no layer holds randomness: models are deterministic functions of their inputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute
from rae_dit.models import float8

Dtype = type[jnp.float32] | type[jnp.bfloat16]
Axes = tuple[str | None, ...]


class Constant(nnx.Variable):
    """A leaf, such as sine-cosine positions, that is saved like a parameter, but not trained."""


def make_constant(value: Array | np.ndarray, *, trained: bool) -> nnx.Variable:
    """Makes a `Constant`, or in its place a parameter of the same name if it is trained."""
    return nnx.Param(jnp.asarray(value)) if trained else Constant(jnp.asarray(value))


def value_of(variable: nnx.Variable) -> Array:
    """Returns the value of a leaf; neither gradient nor weight decay reaches a `Constant`."""
    value: Array = variable[...]
    return jax.lax.stop_gradient(value) if isinstance(variable, Constant) else value


def compute_dtype(compute: Compute) -> Dtype:
    """Returns the dtype of matrix products; parameters are float32 in any case."""
    return jnp.bfloat16 if compute.dtype == "bfloat16" else jnp.float32


def torch_uniform(fan_in: int) -> nnx.Initializer:
    """Returns torch's default initializer of a Linear: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def initialize(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize


class Linear(nnx.Linear):
    """y = x W + b with torch's default initialization and named kernel axes.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        axes: names of the kernel's two axes, for sharding.
        matrices: how many matrices the kernel joins along its outputs, each of which Muon makes
            orthogonal by itself; 0 for a kernel that is none, such as a convolution's.
        kernel_init: overrides torch's default (zeros for adaLN, xavier for patch embeddings).
        bias_init: overrides torch's default.
        dtype: compute dtype of the product.
        use_float8: compute the product from 8-bit floats, see `float8`.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        axes: Axes,
        matrices: int = 1,
        kernel_init: nnx.Initializer | None = None,
        bias_init: nnx.Initializer | None = None,
        dtype: Dtype,
        use_float8: bool = False,
        rngs: nnx.Rngs,
    ):
        default = torch_uniform(in_features)
        super().__init__(
            in_features,
            out_features,
            kernel_init=kernel_init or default,
            bias_init=bias_init or default,
            kernel_metadata={"axes": axes, "matrices": matrices},
            dtype=dtype,
            param_dtype=jnp.float32,
            rngs=rngs,
        )
        self.use_float8 = use_float8

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        """Transforms the last axis."""
        if not self.use_float8:
            return super().__call__(x)
        kernel = self.kernel[...].astype(self.dtype)
        return float8.linear(x.astype(self.dtype), kernel, self.bias[...])


class RMSNorm(nnx.Module):
    """x / sqrt(mean x^2 + eps) * weight, over the last axis; the mean is taken in float32.

    Source: LightningDiT `RMSNorm`; the cast back to x.dtype comes before the weight, as there.
    """

    def __init__(self, width: int, *, eps: float = 1e-6):
        self.weight = nnx.Param(jnp.ones(width))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalizes the last axis."""
        x32 = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * scale).astype(x.dtype) * self.weight[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps), over the last axis in float32; affine if asked.

    The affine-free form is the last layer of every RAE encoder (paper, section 3).
    """

    def __init__(self, width: int, *, eps: float, affine: bool = True):
        self.weight = nnx.Param(jnp.ones(width)) if affine else None
        self.bias = nnx.Param(jnp.zeros(width)) if affine else None
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalizes the last axis."""
        x32 = x.astype(jnp.float32)
        centered = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
        y = centered * jax.lax.rsqrt(variance + self.eps)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight[...] + self.bias[...]
        return y.astype(x.dtype)


def patchify(image: Float[Array, "B H W C"], patch: int) -> Float[Array, "B N P"]:
    """Cuts images into patches in raster order; inside a patch (row, column, channel).

    P = patch^2 C.
    """
    batch, height, width, channels = image.shape
    grid = image.reshape(batch, height // patch, patch, width // patch, patch, channels)
    grid = grid.transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, (height // patch) * (width // patch), patch * patch * channels)


def unpatchify(
    patches: Float[Array, "B N P"], patch: int, height: int, width: int
) -> Float[Array, "B H W C"]:
    """Inverts `patchify`; `height` and `width` count patches."""
    batch = patches.shape[0]
    grid = patches.reshape(batch, height, width, patch, patch, -1).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, height * patch, width * patch, -1)


def sincos_position_embedding(
    width: int, height: int, length: int, *, spacing: float = 1.0
) -> Float[np.ndarray, "N D"]:
    """Returns the 2-D sine-cosine embedding of a `height` x `length` grid, float32, raster order.

    The first half of the channels encodes the *column*, the second half the row; each half is
    [sin(p w), cos(p w)] with w_k = 10000^(-k / (D/4)), computed in float64. Neighbors are
    `spacing` apart in p.

    Source: MAE / DiT `get_2d_sincos_pos_embed` (SEMANTICS 4.4). diffuse_nnx computes in float32.
    """
    omega = 10000.0 ** (-np.arange(width // 4, dtype=np.float64) / (width / 4))

    def encode(position: np.ndarray) -> np.ndarray:
        angle = np.outer(position.reshape(-1).astype(np.float64), omega)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    row, column = np.meshgrid(np.arange(height), np.arange(length), indexing="ij")
    halves = [encode(spacing * column), encode(spacing * row)]
    return np.concatenate(halves, axis=1).astype(np.float32)
