"""The GPU kernel that rounds in rows and transposed, interpreted, beside NumPy; and on a mesh."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from rae_dit.kernels.rounding import can_round_on_gpu, round_both_ways, round_both_ways_gpu
from rae_dit.training.sharding import batch_sharding, make_mesh


def rounded(x: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return (x.astype("f") * factor[:, None]).astype(ml_dtypes.float8_e4m3fn)


def arguments(rows: int, columns: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, columns)).astype(ml_dtypes.bfloat16)
    return [x, *(random.uniform(1, 60, rows).astype("f") for _ in range(2))]


def assert_rounds(found, x, factor, factor_transposed):
    rows, columns, sums = map(np.asarray, found)
    np.testing.assert_array_equal(rows.view("u1"), rounded(x, factor).view("u1"))
    expected = np.ascontiguousarray(rounded(x, factor_transposed).T)
    np.testing.assert_array_equal(columns.view("u1"), expected.view("u1"))
    np.testing.assert_allclose(sums, x.astype("f").sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(96, 160), (256, 128)])
def test_kernel_and_reference_round_as_numpy_does(shape):
    given = arguments(*shape)
    assert_rounds(round_both_ways(*map(jnp.asarray, given)), *given)
    assert_rounds(round_both_ways_gpu(*map(jnp.asarray, given), interpret=True), *given)


def test_rows_are_split_over_a_mesh_and_sums_are_of_all():
    mesh, given = make_mesh(2), arguments(256, 32)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, batch_sharding(mesh)) for x in given]
        found = jax.jit(lambda *x: round_both_ways_gpu(*x, interpret=True))(*placed)
    assert_rounds(found, *given)
    assert found[0].sharding.shard_shape((256, 32)) == (32, 32)


def test_matrices_that_no_tile_divides_are_left_to_xla():
    assert can_round_on_gpu(32768, 1152, 8)
    assert can_round_on_gpu(268 * 16, 3456, 2)
    assert not can_round_on_gpu(40, 1152, 1)
    assert not can_round_on_gpu(64, 32, 4)  # 16 rows a device
    assert not can_round_on_gpu(64, 24, 1)
