"""Rounding a matrix to 8-bit floats for both products that need it: in rows, and transposed.

Tensor cores multiply 8-bit floats only if both factors lie with the summed index contiguous. A
matrix x that is a factor of a product over its columns and of another one over its rows is needed
twice: as it lies, and transposed. XLA writes a transposed rounding at a fraction of the memory's
speed and reads x once for each; the kernel reads x once, and sums its columns on the way, which a
gradient's bias asks for (docs/performance.md).

`round_both_ways` is the definition in plain JAX; `round_both_ways_gpu` the kernel, tile by tile,
through Pallas and Triton.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

FLOAT8 = jnp.float8_e4m3fn
TILE = (64, 128)  # rows and columns, at most: the fastest on an H200 (docs/performance.md)
SMALLEST_TILE = 32
WARPS = 4

Rounded = tuple[Float[Array, "M K"], Float[Array, "K M"], Float[Array, " K"]]


def round_both_ways(
    x: Float[Array, "M K"], factor: Float[Array, " M"], factor_transposed: Float[Array, " M"]
) -> Rounded:
    """Multiplies rows by factors and rounds to e4m3; the same again, transposed.

    Args:
        x: float32 or bfloat16.
        factor: of each row of the first result, float32; |x_ik| factor_i must not exceed 448.
        factor_transposed: of each row of x, and so each column of the second result, likewise.

    Returns:
        e4m3 numbers of x factor, and of (x factor_transposed)^T; float32 sums of the columns of x.
    """
    x32 = x.astype(jnp.float32)
    rows = (x32 * factor[:, None]).astype(FLOAT8)
    columns = (x32 * factor_transposed[:, None]).astype(FLOAT8).T
    return rows, columns, jnp.sum(x32, axis=0)


def can_round_on_gpu(rows: int, columns: int, devices: int) -> bool:
    """Says whether the kernel takes a matrix whose rows are split over so many devices."""
    return rows % (devices * SMALLEST_TILE) == 0 and columns % SMALLEST_TILE == 0


def round_both_ways_gpu(
    x: Float[Array, "M K"],
    factor: Float[Array, " M"],
    factor_transposed: Float[Array, " M"],
    *,
    interpret: bool = False,
) -> Rounded:
    """Computes `round_both_ways` in one pass; `can_round_on_gpu` says of which matrices.

    Rows are split over the mesh in force, if there is one.

    Args:
        x: as there.
        factor: as there.
        factor_transposed: as there.
        interpret: run the kernel as plain JAX, on any device: for tests.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _round(x, factor, factor_transposed, interpret=interpret)
    axes = mesh.axis_names

    def local(x: Array, factor: Array, factor_transposed: Array) -> Rounded:
        rows, columns, sums = _round(x, factor, factor_transposed, interpret=interpret)
        return rows, columns, jax.lax.psum(sums, axes)

    split = PartitionSpec(axes)
    results = (split, PartitionSpec(None, axes), PartitionSpec())
    return jax.shard_map(local, in_specs=(split,) * 3, out_specs=results, check_vma=False)(
        x, factor, factor_transposed
    )


def _round(x: Array, factor: Array, factor_transposed: Array, *, interpret: bool) -> Rounded:
    """Runs the kernel over the rows of one device."""
    from jax.experimental import pallas as pl  # late: half a second, for float8 on GPUs only
    from jax.experimental.pallas import triton

    rows, columns = x.shape
    # the largest powers of two that divide the matrix and fit into a tile
    height, width = (min(size & -size, most) for size, most in zip(x.shape, TILE, strict=True))

    def kernel(x_ref, factor_ref, transposed_ref, rows_ref, columns_ref, sums_ref):  # type: ignore[no-untyped-def]
        tile = x_ref[...].astype(jnp.float32)
        rows_ref[...] = (tile * factor_ref[...][:, None]).astype(FLOAT8)
        columns_ref[...] = (tile * transposed_ref[...][:, None]).astype(FLOAT8).T
        sums_ref[0, :] = jnp.sum(tile, axis=0)

    of_rows = pl.BlockSpec((height,), lambda i, j: (i,))
    rounded, transposed, sums = pl.pallas_call(
        kernel,
        grid=(rows // height, columns // width),
        in_specs=[pl.BlockSpec((height, width), lambda i, j: (i, j)), of_rows, of_rows],
        out_specs=[
            pl.BlockSpec((height, width), lambda i, j: (i, j)),
            pl.BlockSpec((width, height), lambda i, j: (j, i)),
            pl.BlockSpec((1, width), lambda i, j: (i, j)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((rows, columns), FLOAT8),
            jax.ShapeDtypeStruct((columns, rows), FLOAT8),
            jax.ShapeDtypeStruct((rows // height, columns), jnp.float32),
        ],
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
    )(x, factor, factor_transposed)
    return rounded, transposed, jnp.sum(sums, axis=0)
