"""Attention over an odd number of tokens, which cuDNN refuses, with one masked token added.

Encoders and decoders have odd lengths because of their class token.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def odd_length_attention(
    q: Float[Array, "B N H Dh"],
    k: Float[Array, "B N H Dh"],
    v: Float[Array, "B N H Dh"],
    *,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "B N H Dh"]:
    """Computes attention with one masked token added: cuDNN's backward pass refuses odd lengths."""
    tokens = q.shape[1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
    return masked_attention(q, k, v, tokens, implementation=implementation)[:, :tokens]


def masked_attention(
    q: Float[Array, "B M H Dh"],
    k: Float[Array, "B M H Dh"],
    v: Float[Array, "B M H Dh"],
    tokens: int,
    *,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "B M H Dh"]:
    """Computes attention to the first `tokens` keys; all M queries get a finite result."""
    batch, queries = q.shape[:2]
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        query_seq_lengths=jnp.full(batch, queries, jnp.int32),
        key_value_seq_lengths=jnp.full(batch, tokens, jnp.int32),
        implementation=implementation,
    )


@jax.custom_vjp
def three_products(
    x: Float[Array, "B N D"], kernel: Float[Array, "D E"], bias: Float[Array, " E"]
) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"], Float[Array, "B N D"]]:
    """Computes the three parts of x W + b, each an array of its own; E = 3 D.

    One product would have to be cut, three arrays copied. The backward pass joins their gradients
    and has one product for x and one for W, as that of the whole product.
    """
    parts = zip((x, x, x), jnp.split(kernel, 3, axis=1), jnp.split(bias, 3), strict=True)
    q, k, v = (x @ part + offset for x, part, offset in parts)
    return q, k, v


def three_products_forward(
    x: Array, kernel: Array, bias: Array
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
    """Returns the products and what their gradients need."""
    return three_products(x, kernel, bias), (x, kernel)


def three_products_backward(
    kept: tuple[Array, Array], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Returns the gradients of x, kernel and bias."""
    x, kernel = kept
    joined = jnp.concatenate(gradients, axis=-1)
    return joined @ kernel.T, jnp.einsum("bnd,bne->de", x, joined), jnp.sum(joined, axis=(0, 1))


three_products.defvjp(three_products_forward, three_products_backward)
