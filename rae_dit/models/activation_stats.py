r"""A look inside a DiT^DH while it works: how large its residual stream and attention logits are.

For block b with residual stream x_b after it, and queries and keys q, k of one head,

    rms_b   = sqrt(mean x_b^2)                 over batch, tokens and width         (1)
    logit_b = max  q . k / sqrt(Dh)            over batch, heads and token pairs    (2)

Training that is about to diverge shows here first, long before the loss: attention logits grow
without bound until softmax is one-hot (Dehghani et al. 2023, arXiv 2302.05442, section 3.1;
Wortsman et al. 2023, arXiv 2309.14322), and in bf16 a large residual stream swallows what blocks
add.

Queries and keys are computed a second time, from the block's input. So the model itself holds and
returns nothing for this, and costs nothing more where nobody looks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rae_dit.models.conditioning import modulate
from rae_dit.models.ddt import DDT
from rae_dit.models.ddt_block import DDTBlock
from rae_dit.models.stack import Stack, split_batch


class Observation(NamedTuple):
    """What is seen of a stack of blocks, float32; equations (1) and (2).

    Attributes:
        rms: of the residual stream after each block.
        logit: largest attention logit of each block, before the softmax.
    """

    rms: Float[Array, " depth"]
    logit: Float[Array, " depth"]


def observe_ddt(
    ddt: DDT, x: Float[Array, "B h w C"], t: Float[Array, " B"], y: Int[Array, " B"]
) -> dict[str, Observation]:
    """Runs the model and returns what was seen in its two stacks, "backbone" and "head".

    Args:
        ddt: the model, scanned or unrolled; it is scanned here in any case: it compiles fast.
        x: noised latent.
        t: time in [0, 1].
        y: class labels.
    """
    seen: list[Observation] = []

    def run(stack: Stack, x: Array, *conditions: Array) -> Array:
        x, observation = observe_stack(stack, x, *conditions)
        seen.append(observation)
        return x

    ddt(x, t, y, run=run)
    return dict(zip(("backbone", "head"), seen, strict=True))


def observe_stack(
    stack: Stack, x: Float[Array, "B N D"], *conditions: Array
) -> tuple[Float[Array, "B N D"], Observation]:
    """Runs a stack of DDT blocks; returns its output and what was seen after each block."""
    graphdef, stacked = nnx.split(stack.blocks)

    def run_block(x: Array, parameters: nnx.State) -> tuple[Array, Observation]:
        x, block = split_batch(x), nnx.merge(graphdef, parameters)
        after = split_batch(block(x, *conditions))
        rms = jnp.sqrt(jnp.mean(jnp.square(after.astype(jnp.float32))))
        return after, Observation(rms, largest_logit(block, x, *conditions))

    return jax.lax.scan(run_block, x, stacked)


def largest_logit(
    block: DDTBlock, x: Float[Array, "B N D"], condition: Float[Array, "B M D"], *rotation: Array
) -> Float[Array, ""]:
    """Equation (2) for one block with input x; products are summed in float32."""
    shift, scale, *_ = block.modulation(condition)
    turn = (rotation[0], rotation[1]) if rotation else None
    q, k, _ = block.attention.queries_keys_values(modulate(block.norm1(x), shift, scale), turn)
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
    return jnp.max(logits) / q.shape[-1] ** 0.5
