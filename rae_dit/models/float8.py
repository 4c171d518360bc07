r"""Linear layers of 8-bit floats: half the bits, twice the rate, about half the energy.

A product x W is computed from numbers of 4 exponent and 3 mantissa bits (e4m3, at most 448), each
row of x and each column of W with a scale of its own:

    x_ik = a_i X_ik,    a_i = max_k |x_ik| / 448,    X rounded to e4m3                     (1)
    W_kj = b_j V_kj,    b_j = max_k |W_kj| / 448,    V rounded to e4m3                     (2)
    (x W)_ij = a_i b_j  sum_k X_ik V_kj                                                    (3)

Scales do not depend on the summed index k, so that (3) is exact but for the roundings of e4m3,
2^-4 of a number at most; tensor cores keep the sum in float32. The scales come from the numbers at
hand: nothing is calibrated and nothing is clipped, a run keeps no history of scales, and a token
does not depend on the others of its batch.

The gradient of x is (3) for g W^T, with scales c_i for each row of g = dL/dy and for each row of W.
That of W sums over the rows i, so that scales of rows cannot be taken out of the sum. They are
moved to one of the factors, which gets one scale for all of it:

    dW_kj = sum_i x_ik g_ij = s  sum_i X_ik (a_i g_ij / s),    s = max_i a_i c_i           (4)

with a_i g_ij / s rounded to e4m3: at most 448 by the choice of s. X is that of the forward pass,
which keeps no other copy of x for the backward pass.

Source: (3) is torchao's recipe "rowwise"; e4m3 is OCP OFP8, section 5.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rae_dit.kernels.rounding import (
    FLOAT8,
    Rounded,
    can_round_on_gpu,
    round_both_ways,
    round_both_ways_gpu,
)
from rae_dit.models.platform import target_devices

LARGEST = float(jnp.finfo(FLOAT8).max)  # 448

Rows = tuple[Float[Array, "... K"], Float[Array, "... 1"]]


def quantize(x: Float[Array, "... K"]) -> Rows:
    """Rounds to e4m3 with a scale for each row: (1).

    Returns:
        float8_e4m3fn numbers and float32 scales, of which x is the product up to rounding. The
        scale of a row of zeros is 0; a row with NaN or infinity is NaN.
    """
    scale = scale_of_rows(x)
    return (x.astype(jnp.float32) * reciprocal(scale)).astype(FLOAT8), scale


def scale_of_rows(x: Float[Array, "... K"]) -> Float[Array, "... 1"]:
    """Returns a of (1), float32."""
    return jnp.max(jnp.abs(x), axis=-1, keepdims=True).astype(jnp.float32) / LARGEST


def reciprocal(scale: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns 1 / scale, and 0 of 0."""
    return jnp.where(scale == 0, 0.0, 1 / scale)


def multiply(
    x: Rows, kernel: tuple[Float[Array, "O K"], Float[Array, "O 1"]], dtype: DTypeLike
) -> Float[Array, "... O"]:
    """Computes (3) from rounded factors; that on the right lies transposed, as Hopper needs it."""
    (left, left_scale), (right, right_scale) = x, kernel
    last = (((left.ndim - 1,), (1,)), ((), ()))
    y = jax.lax.dot_general(left, right, last, preferred_element_type=dtype)
    return (y * left_scale * right_scale[:, 0]).astype(dtype)


@jax.custom_vjp
def linear(
    x: Float[Array, "... K"], kernel: Float[Array, "K O"], bias: Float[Array, " O"]
) -> Float[Array, "... O"]:
    """Computes x W + b by (3), and its gradients as above.

    Args:
        x: float32 or bfloat16, also the dtype of the result.
        kernel: W, of the same dtype.
        bias: b, of any; it is cast, and its gradient summed in float32, then cast likewise.
    """
    return multiply(quantize(x), quantize(kernel.T), x.dtype) + bias.astype(x.dtype)


def linear_forward(
    x: Float[Array, "... K"], kernel: Float[Array, "K O"], bias: Float[Array, " O"]
) -> tuple[Float[Array, "... O"], tuple[Array, ...]]:
    """Returns the result, and what its gradients need."""
    scale = scale_of_rows(x)
    factor = reciprocal(scale).reshape(-1)
    rows, columns, _ = rounded_both_ways(x.reshape(factor.size, -1), factor, factor)
    y = multiply((rows.reshape(x.shape), scale), quantize(kernel.T), x.dtype)
    return y + bias.astype(x.dtype), (columns, scale, kernel, bias)


def linear_backward(
    saved: tuple[Array, ...], gradient: Float[Array, "... O"]
) -> tuple[Float[Array, "... K"], Float[Array, "K O"], Float[Array, " O"]]:
    """Returns the gradients of x, W by (4), and b."""
    columns, scale_x, kernel, bias = saved
    scale = scale_of_rows(gradient)
    shared = jnp.max(scale_x * scale)
    factor = reciprocal(scale).reshape(-1)
    flat = gradient.reshape(factor.size, -1)
    rows, transposed, sums = rounded_both_ways(
        flat, factor, scale_x.reshape(-1) * reciprocal(shared)
    )
    of_x = multiply((rows.reshape(gradient.shape), scale), quantize(kernel), gradient.dtype)
    # shared is the scale of all
    of_kernel = multiply((columns, shared), (transposed, jnp.ones((1, 1))), kernel.dtype)
    return of_x, of_kernel, sums.astype(bias.dtype)


linear.defvjp(linear_forward, linear_backward)


def rounded_both_ways(
    x: Float[Array, "M K"], factor: Float[Array, " M"], factor_transposed: Float[Array, " M"]
) -> Rounded:
    """Calls the kernel where there is one."""
    (rows, columns), (platform, devices) = x.shape, target_devices()
    if platform == "gpu" and devices is not None and can_round_on_gpu(rows, columns, devices):
        return round_both_ways_gpu(x, factor, factor_transposed)
    return round_both_ways(x, factor, factor_transposed)
