r"""Activation statistics of a DiT^DH: residual stream and attention logits of every block.

For block b with residual stream x_b after it, and queries and keys q, k of one head,

    rms_b   = sqrt(mean x_b^2)                 over batch, tokens and width         (1)
    logit_b = max  q . k / sqrt(Dh)            over batch, heads and token pairs    (2)

Training that is about to diverge shows here first, long before the loss: attention logits grow
without bound until softmax is one-hot (Dehghani et al. 2023, arXiv 2302.05442, section 3.1;
Wortsman et al. 2023, arXiv 2309.14322), and in bf16 a large residual stream swallows what blocks
add.

Queries and keys are computed a second time, from the block's input, so that the model itself
holds and returns nothing for this and costs no more where no statistics are taken.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rae_dit.models.ddt import DDT
from rae_dit.models.ddt_block import DDTBlock, PlainBlock
from rae_dit.models.stack import Stack, split_batch

QUERIES = 128  # whose attention logits are in memory at once


class ActivationStats(NamedTuple):
    """Statistics of a stack of blocks, float32; equations (1) and (2).

    Attributes:
        rms: of the residual stream after each block.
        logit: largest attention logit of each block, before the softmax.
    """

    rms: Float[Array, " depth"]
    logit: Float[Array, " depth"]


def activation_stats(
    ddt: DDT,
    x: Float[Array, "B h w C"],
    t: Float[Array, " B"],
    y: Int[Array, " B"],
    r: Float[Array, " B"] | None = None,
) -> dict[str, ActivationStats]:
    """Runs the model and returns the statistics of "backbone" and "head".

    The blocks after a second head are numbered on within the backbone.

    Args:
        ddt: the model, scanned or unrolled; its stacks are scanned here in either case.
        x: noised latent.
        t: time in [0, 1].
        y: class labels.
        r: earlier time, of a network with two times.
    """
    collected: list[ActivationStats] = []

    def apply_stack(stack: Stack, x: Array, *conditions: Array) -> Array:
        x, stats = apply_with_stats(stack, x, *conditions)
        collected.append(stats)
        return x

    ddt(x, t, y, r, apply_stack=apply_stack)
    *backbone, head = collected
    return {
        "backbone": jax.tree.map(lambda *parts: jnp.concatenate(parts), *backbone),
        "head": head,
    }


def apply_with_stats(
    stack: Stack, x: Float[Array, "B N D"], *conditions: Array
) -> tuple[Float[Array, "B N D"], ActivationStats]:
    """Runs a stack of DDT blocks; returns its output and the statistics of each block."""
    graphdef, stacked = nnx.split(stack.blocks)

    def run_block(x: Array, parameters: nnx.State) -> tuple[Array, ActivationStats]:
        x, block = split_batch(x), nnx.merge(graphdef, parameters)
        after = split_batch(block(x, *conditions))
        rms = jnp.sqrt(jnp.mean(jnp.square(after.astype(jnp.float32))))
        return after, ActivationStats(rms, max_attention_logit(block, x, *conditions))

    return jax.lax.scan(run_block, x, stacked)


def max_attention_logit(
    block: DDTBlock | PlainBlock, x: Float[Array, "B N D"], *conditions: Array
) -> Float[Array, ""]:
    """Computes equation (2) for one block with input x; products are summed in float32."""
    q, k = block.queries_keys(x, *conditions)
    return max_product(q, k) / q.shape[-1] ** 0.5


def max_product(q: Float[Array, "B N H Dh"], k: Float[Array, "B N H Dh"]) -> Float[Array, ""]:
    """Computes the largest q . k of a batch, summed in float32, in blocks of QUERIES rows.

    All products at once would be the one array that the step's attention kernels avoid: B H N^2
    numbers, 2 GiB for 32 images of 1,024 tokens and 16 heads. The last block repeats a query,
    which changes no maximum.
    """
    missing = -q.shape[1] % QUERIES
    padded = jnp.pad(q, ((0, 0), (0, missing), (0, 0), (0, 0)), mode="edge")
    blocks = padded.reshape(q.shape[0], -1, QUERIES, *q.shape[2:])

    def larger(largest: Array, queries: Array) -> tuple[Array, None]:
        products = jnp.einsum("bnhd,bmhd->bhnm", queries, k, preferred_element_type=jnp.float32)
        return jnp.maximum(largest, jnp.max(products)), None

    return jax.lax.scan(larger, jnp.float32(-jnp.inf), jnp.moveaxis(blocks, 1, 0))[0]
