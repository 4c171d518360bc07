"""One kind of block, repeated: run in a loop that compiles once, or unrolled."""

from collections.abc import Callable
from typing import TypeVar

import jax
from flax import nnx
from jaxtyping import Array, Float

TreeT = TypeVar("TreeT")


class Stack(nnx.Module):
    """`depth` blocks of one kind, their parameters stacked on a leading axis.

    The same parameters can run under `lax.scan` (one block is compiled: seconds instead of
    minutes on TPU, and less host memory) or unrolled (faster on GPU, where XLA then schedules
    across blocks). Results are equal up to float32 rounding.

    Args:
        make_block: builds one block from its own `Rngs`.
        depth: number of blocks, at least 1.
        scan: True runs `lax.scan`, False unrolls.
        remat: what the backward pass recomputes: "none", "dots" (everything but matrix
            products) or "full" (everything but each block's input).
        rngs: where initial values come from.
    """

    def __init__(
        self,
        make_block: Callable[[nnx.Rngs], nnx.Module],
        depth: int,
        *,
        scan: bool,
        remat: str,
        rngs: nnx.Rngs,
    ):
        self.blocks = jax.vmap(make_block)(rngs.split(depth))
        self.depth = depth
        self.scan = scan
        self.remat = remat

    def __call__(self, x: Float[Array, "B N D"], *conditions: Array) -> Float[Array, "B N D"]:
        """Runs x through the blocks; every block sees the same `conditions`."""
        graphdef, stacked = nnx.split(self.blocks)

        def run_block(x: Array, parameters: nnx.State) -> Array:
            return nnx.merge(graphdef, parameters)(x, *conditions)

        match self.remat:
            case "dots":
                policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
                run_block = jax.checkpoint(run_block, policy=policy, prevent_cse=not self.scan)
            case "full":
                run_block = jax.checkpoint(run_block, prevent_cse=not self.scan)

        if self.scan:
            return jax.lax.scan(lambda x, p: (run_block(x, p), None), x, stacked)[0]
        for parameters in unstack(stacked, self.depth):
            x = run_block(x, parameters)
        return x


def unstack(stacked: TreeT, depth: int) -> list[TreeT]:
    """Splits every leaf along its leading axis into `depth` trees.

    `lax.split` is used because its transpose is one concatenation; indexing with [i] would
    transpose into `depth` full-size additions.
    """
    leaves, treedef = jax.tree.flatten(stacked)
    columns = [jax.lax.split(leaf, (1,) * depth, axis=0) for leaf in leaves]
    return [jax.tree.unflatten(treedef, [column[i][0] for column in columns]) for i in range(depth)]
