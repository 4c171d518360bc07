r"""Matrix products of 8-bit floats: half the bits, twice the rate, about half the energy.

A product x W is computed from numbers of 4 exponent and 3 mantissa bits (e4m3, at most 448), each
row of x and each column of W with a scale of its own:

    a_i = max_k |x_ik| / 448,    b_j = max_k |W_kj| / 448                        (1)
    (x W)_ij ~ a_i b_j  sum_k  e4m3(x_ik / a_i)  e4m3(W_kj / b_j)                (2)

Scales do not depend on the summed index k, so that (2) is exact but for the roundings of e4m3,
2^-4 of a number at most; tensor cores keep the sum in float32. The scales come from the numbers at
hand: nothing is calibrated and nothing is clipped, a run keeps no history of scales, and a token
does not depend on the others of its batch.

The gradient of x is (2) for g W^T, with scales for each row of g and each row of W. That of W sums
over all tokens, with few bits for many small numbers; it stays a product in the compute dtype.

Source: torchao's recipe "rowwise_with_gw_hp"; e4m3 is OCP OFP8, section 5.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

FLOAT8 = jnp.float8_e4m3fn
LARGEST = float(jnp.finfo(FLOAT8).max)  # 448

Rows = tuple[Float[Array, "... K"], Float[Array, "... 1"]]


def quantize(x: Float[Array, "... K"]) -> Rows:
    """Rounds to e4m3 with a scale for each row: (1).

    Returns:
        float8_e4m3fn numbers and float32 scales, of which x is the product up to rounding. The
        scale of a row of zeros is 1; a row with NaN or infinity is NaN.
    """
    x32 = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x32), axis=-1, keepdims=True)
    scale = jnp.where(largest == 0, 1.0, largest / LARGEST)
    return (x32 * (1 / scale)).astype(FLOAT8), scale


def multiply(
    x: Rows, kernel: tuple[Float[Array, "O K"], Float[Array, "O 1"]], dtype: DTypeLike
) -> Float[Array, "... O"]:
    """Computes (2) from rounded factors; that on the right lies transposed, as Hopper needs it."""
    (left, left_scale), (right, right_scale) = x, kernel
    last = (((left.ndim - 1,), (1,)), ((), ()))
    y = jax.lax.dot_general(left, right, last, preferred_element_type=dtype)
    return (y * left_scale * right_scale[:, 0]).astype(dtype)


@jax.custom_vjp
def product(x: Float[Array, "... K"], kernel: Float[Array, "K O"]) -> Float[Array, "... O"]:
    """Computes x W by (2), and its gradients as above; x and W have one dtype, the result's."""
    return multiply(quantize(x), quantize(kernel.T), x.dtype)


def product_forward(
    x: Float[Array, "... K"], kernel: Float[Array, "K O"]
) -> tuple[Float[Array, "... O"], tuple[Array, Array]]:
    """Returns the product, and what its gradients need."""
    return product(x, kernel), (x, kernel)


def product_backward(
    saved: tuple[Array, Array], gradient: Float[Array, "... O"]
) -> tuple[Float[Array, "... K"], Float[Array, "K O"]]:
    """Returns the gradients of x, rounded, and of W, not rounded."""
    x, kernel = saved
    rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return multiply(quantize(gradient), quantize(kernel), x.dtype), rows.T @ columns


product.defvjp(product_forward, product_backward)
