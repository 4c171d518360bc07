"""A stack of equal blocks: scanned (one block is compiled) or unrolled."""

from collections.abc import Callable
from typing import TypeVar

import jax
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from rae_dit.models.layers import Dtype
from rae_dit.models.platform import target_devices

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
        dtype: compute dtype of the blocks' matrix products.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        make_block: Callable[[nnx.Rngs], nnx.Module],
        depth: int,
        *,
        scan: bool,
        remat: str,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.blocks = jax.vmap(make_block)(rngs.split(depth))
        self.depth = depth
        self.scan = scan
        self.remat = remat
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B N D"], *conditions: Array) -> Float[Array, "B N D"]:
        """Applies the blocks in order; every block gets the same `conditions`."""
        run_block, stacked = self.prepare(*conditions)
        if self.scan:
            return jax.lax.scan(lambda x, p: (run_block(x, p), None), x, stacked)[0]
        for parameters in unstack(stacked, self.depth):
            x = run_block(x, parameters)
        return x

    def outputs(
        self, x: Float[Array, "B N D"], layers: tuple[int, ...], *conditions: Array
    ) -> list[Float[Array, "B N D"]]:
        """Returns what several blocks give; always unrolled.

        Args:
            x: input of the first block.
            layers: numbers of the blocks, from 0; may repeat. Blocks after the last of them are
                not computed.
            conditions: as in `__call__`.
        """
        run_block, stacked = self.prepare(*conditions)
        outputs = []
        for parameters in unstack(stacked, self.depth)[: max(layers) + 1]:
            x = run_block(x, parameters)
            outputs.append(x)
        return [outputs[layer] for layer in layers]

    def prepare(self, *conditions: Array) -> tuple[Callable[[Array, nnx.State], Array], nnx.State]:
        """Returns (x, parameters of one block) -> x, and the stacked parameters, cast."""
        graphdef, stacked = nnx.split(self.blocks)
        stacked = nnx.map_state(self.cast_matrix, stacked)

        def run_block(x: Array, parameters: nnx.State) -> Array:
            block = nnx.merge(graphdef, parameters)
            return split_batch(block(in_rows(split_batch(x)), *conditions))

        match self.remat:
            case "dots":
                policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
                run_block = jax.checkpoint(run_block, policy=policy, prevent_cse=not self.scan)
            case "full":
                run_block = jax.checkpoint(run_block, prevent_cse=not self.scan)

        return run_block, stacked

    def cast_matrices(self) -> None:
        """Casts the blocks' matrices to the compute dtype, once for all later calls.

        For a model that a jitted function merges and evaluates many times in a loop: XLA leaves
        such casts in the loop's body, where they cost 2 to 4 % of an evaluation in bfloat16.
        """
        graphdef, stacked = nnx.split(self.blocks)
        self.blocks = nnx.merge(graphdef, nnx.map_state(self.cast_matrix, stacked))

    def cast_matrix(self, _: tuple, variable: nnx.Variable) -> nnx.Variable:
        """Casts a kernel to the compute dtype, as its product would; leaves other variables.

        Cast while stacked, the blocks' gradients are joined in that dtype, at half the memory
        traffic in bfloat16; the numbers are the same.
        """
        if "axes" not in variable.get_metadata():
            return variable
        return variable.replace(variable.get_value().astype(self.dtype))


def split_batch(x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """Shards activations along the batch alone, over all axes of the current mesh.

    Without this, kernels sharded along their width (FSDP) make XLA shard activations likewise and
    copy the batch: DiT^DH-XL on 2 x 128 TPU v5e then needs 282 GiB of temporaries instead of 4.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))


def in_rows(x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """Keeps tokens, and on the way back their gradients, in rows of channels on GPUs.

    Left to choose, XLA stores them with the channels outermost, so that adding a bias becomes a
    plain sum. Where something wants rows nevertheless, such as trained positions, of whose gradient
    the batch is summed, it then transposes in every block: 16 ms of a step of DiT^DH-XL.
    """
    platform, devices = target_devices()
    if platform != "gpu" or devices is None or x.shape[0] % devices:
        return x

    def constrain(x: Array) -> Array:
        return with_layout_constraint(x, Layout(major_to_minor=(0, 1, 2)))

    if devices == 1:
        return constrain(x)
    # The compiler does not partition a constraint: unmapped, it would gather the whole batch.
    mesh = jax.sharding.get_abstract_mesh()
    batch = PartitionSpec(mesh.axis_names)
    return jax.shard_map(constrain, mesh=mesh, in_specs=batch, out_specs=batch)(x)


def unstack(stacked: TreeT, depth: int) -> list[TreeT]:
    """Splits every leaf along its leading axis into `depth` trees.

    `lax.split` is used because its transpose is one concatenation; indexing with [i] would
    transpose into `depth` full-size additions.
    """
    leaves, treedef = jax.tree.flatten(stacked)
    columns = [jax.lax.split(leaf, (1,) * depth, axis=0) for leaf in leaves]
    return [jax.tree.unflatten(treedef, [column[i][0] for column in columns]) for i in range(depth)]
