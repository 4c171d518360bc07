r"""Trained heads of the stage-1 discriminator, on the features of a frozen network.

Each head reads the tokens of one block of the network (features.py) and gives every token a logit:

    a = act(norm(conv_1(x))),   b = (a + act(norm(conv_9(a)))) / sqrt(2),   logit = conv_1(b)    (1)

with act a LeakyReLU of slope 0.2. Convolutions run along the tokens in raster order, and the last
token's neighbor is the first. `norm` has the mean and the variance of one image's tokens, channel
by channel, so images of a batch do not see each other. All kernels are divided by their largest
singular value (spectral normalization, arXiv 1802.05957), estimated from two vectors,

    sigma = u^T W v,   with v <- W^T u / |W^T u|, then u <- W v / |W v|                          (2)

where the rows of the matrix W are the kernel's output channels. u and v are neither trained nor
changed by a forward pass: they are leaves of their own (`SpectralVector`), and `power_iteration`
returns the next ones.

Source: bytetriper/RAE `disc/dinodisc.py`, after StyleGAN-T (arXiv 2301.09515) and VAR. Its five
heads read blocks 11, 2, 5, 8 and 11 of DINO ViT-S/8: the last block twice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.layers import Dtype, torch_uniform
from rae_dit.models.stack import unstack

Tree = dict[str, Any]

NORM_EPS = 1e-6
VECTOR_EPS = 1e-12
SLOPE = 0.2
EXACT = jax.lax.Precision.HIGHEST


class SpectralVector(nnx.Variable):
    """u or v of equation (2)."""


class SpectralConv(nnx.Module):
    """A convolution along tokens with circular padding and a kernel of spectral norm one.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        size: tokens that the kernel spans, odd.
        dtype: compute dtype of the convolution; the norm is float32.
        rngs: where initial values come from.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, dtype: Dtype, rngs: nnx.Rngs):
        initialize = torch_uniform(inputs * size)
        self.kernel = nnx.Param(initialize(rngs.params(), (size, inputs, outputs)))
        self.bias = nnx.Param(initialize(rngs.params(), (outputs,)))
        self.u = SpectralVector(unit(rngs.params.normal((outputs,)), 1))
        self.v = SpectralVector(unit(rngs.params.normal((size, inputs)), 2))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N E"]:
        """Convolves; gradients pass through sigma as well, with u and v held."""
        kernel = self.kernel[...]
        u, v = self.u[...], self.v[...]
        kernel = kernel / jnp.einsum("kio,o,ki->", kernel, u, v, precision=EXACT)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + self.bias[...].astype(y.dtype)


@jax.custom_vjp
def convolve(x: Float[Array, "B N C"], kernel: Float[Array, "K C E"]) -> Float[Array, "B N E"]:
    """Convolves circularly along tokens, as one product over K neighbors; K is odd.

    A product, because convolutions inside `lax.cond` are 20 times slower in XLA on CPUs. The
    adjoint of a circular convolution is one too, so that both gradients read the neighbors of one
    array, the output's gradient: the input's neighbors are neither kept nor made again, and no
    gradient of theirs is summed (on a GPU, 1 ms for each head and pass).
    """
    size, inputs, outputs = kernel.shape
    return neighbors(x, size) @ kernel.reshape(size * inputs, outputs)


def neighbors(x: Float[Array, "B N C"], size: int) -> Float[Array, "B N KC"]:
    """Joins the channels of each token's K = `size` neighbors, itself in the middle."""
    margin, count = size // 2, x.shape[1]
    x = jnp.pad(x, ((0, 0), (margin, margin), (0, 0)), mode="wrap")
    return jnp.concatenate([x[:, first : first + count] for first in range(size)], axis=-1)


def convolve_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    """Returns the convolution and what its gradients need."""
    return convolve(x, kernel), (x, kernel)


def convolve_backward(kept: tuple[Array, Array], y_grad: Array) -> tuple[Array, Array]:
    """Returns the gradients of input and kernel.

    With y_n = sum_k x_{n+k} W_k, k from -m to m: dx_n = sum_k dy_{n-k} W_k^T and
    dW_k = sum_n x_n^T dy_{n-k}, where neighbor j of dy is dy_{n+j}.
    """
    x, kernel = kept
    size, inputs, outputs = kernel.shape
    spanned = neighbors(y_grad, size)
    turned = kernel[::-1].transpose(0, 2, 1).reshape(size * outputs, inputs)
    by_neighbor = jnp.einsum("bni,bne->ie", x, spanned).reshape(inputs, size, outputs)
    return spanned @ turned, by_neighbor.transpose(1, 0, 2)[::-1]


convolve.defvjp(convolve_forward, convolve_backward)


class LocalNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) over one image's tokens, channel by channel, then affine."""

    def __init__(self, channels: int):
        self.weight = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        """Normalizes in float32."""
        x32 = x.astype(jnp.float32)
        centered = x32 - jnp.mean(x32, axis=1, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axis=1, keepdims=True)
        y = centered * jax.lax.rsqrt(variance + NORM_EPS)
        return (y * self.weight[...] + self.bias[...]).astype(x.dtype)


class Head(nnx.Module):
    """One head: equation (1).

    Args:
        width: channels of the tokens.
        kernel_size: tokens that the middle convolution spans; 9 in (1).
        dtype: compute dtype.
        rngs: where initial values come from.
    """

    def __init__(self, width: int, kernel_size: int, *, dtype: Dtype, rngs: nnx.Rngs):
        self.enter = SpectralConv(width, width, 1, dtype=dtype, rngs=rngs)
        self.enter_norm = LocalNorm(width)
        self.mix = SpectralConv(width, width, kernel_size, dtype=dtype, rngs=rngs)
        self.mix_norm = LocalNorm(width)
        self.judge = SpectralConv(width, 1, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N"]:
        """Returns a float32 logit for each token, high for real images."""
        x = jax.nn.leaky_relu(self.enter_norm(self.enter(x)), SLOPE)
        mixed = jax.nn.leaky_relu(self.mix_norm(self.mix(x)), SLOPE)
        x = (x + mixed) * jnp.asarray(2**-0.5, x.dtype)
        return self.judge(x)[..., 0].astype(jnp.float32)


class Heads(nnx.Module):
    """The trained part: one head for each feature map, their parameters stacked.

    Args:
        count: number of heads.
        width: channels of the features.
        kernel_size: odd; see `Head`.
        dtype: compute dtype; parameters are float32.
        rngs: where initial values come from.

    Raises:
        ValueError: an even kernel, which has no middle.
    """

    def __init__(self, count: int, width: int, *, kernel_size: int, dtype: Dtype, rngs: nnx.Rngs):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}; expected an odd number of tokens")

        def make_head(rngs: nnx.Rngs) -> Head:
            return Head(width, kernel_size, dtype=dtype, rngs=rngs)

        self.heads = jax.vmap(make_head)(rngs.split(count))
        self.count = count

    def __call__(self, features: list[Float[Array, "B N C"]]) -> Float[Array, "B L"]:
        """Returns float32 logits of all tokens, head after head: L = count N."""
        graph, stacked = nnx.split(self.heads)
        heads = unstack(stacked, self.count)
        logits = [nnx.merge(graph, head)(x) for head, x in zip(heads, features, strict=True)]
        return jnp.concatenate(logits, axis=1)


def power_iteration(parameters: Tree, vectors: Tree) -> Tree:
    """Returns the next u and v of every `SpectralConv`, by one iteration of (2).

    Args:
        parameters: the `nnx.Param` leaves of `Heads`, as a pure dict.
        vectors: its `SpectralVector` leaves.

    Returns:
        The next `vectors`, of length one; no gradient goes through them.
    """
    if "u" in vectors:
        kernel = jax.lax.stop_gradient(parameters["kernel"])
        v = unit(jnp.einsum("...kio,...o->...ki", kernel, vectors["u"], precision=EXACT), 2)
        u = unit(jnp.einsum("...kio,...ki->...o", kernel, v, precision=EXACT), 1)
        return {"u": u, "v": v}
    return {name: power_iteration(parameters[name], inner) for name, inner in vectors.items()}


def unit(x: Float[Array, "..."], axes: int) -> Float[Array, "..."]:
    """Divides an array by its norm over the last `axes` axes."""
    over = tuple(range(-axes, 0))
    length = jnp.sqrt(jnp.sum(jnp.square(x), axis=over, keepdims=True))
    return x / jnp.maximum(length, VECTOR_EPS)
