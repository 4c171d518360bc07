"""8-bit images become floats on the device as they do on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.models.pixels import REST, to_unit

LEVELS = np.arange(256, dtype=np.uint8)
QUOTIENTS = np.divide(LEVELS, np.float32(255), dtype=np.float32)  # correctly rounded by IEEE 754


def test_all_levels_have_the_bits_of_a_division() -> None:
    found = jax.jit(to_unit)(LEVELS)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, QUOTIENTS)
    np.testing.assert_array_equal(to_unit(jnp.asarray(LEVELS)), QUOTIENTS)  # op by op


def test_fused_multiply_add_gives_the_same() -> None:
    """A device may round once where another rounds twice; float64 holds the exact sum."""
    exact = LEVELS.astype(np.float64) * 257 / 65536 + LEVELS.astype(np.float64) * np.float64(REST)
    np.testing.assert_array_equal(exact.astype(np.float32), QUOTIENTS)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_floats_stay(dtype: jnp.dtype) -> None:
    image = jnp.asarray([0.25, 7.0], dtype)
    np.testing.assert_array_equal(to_unit(image), image)
    assert to_unit(image).dtype == dtype
