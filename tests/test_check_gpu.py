"""launch/check_gpu.py, on a CPU: what is right passes, what is wrong or NaN does not."""

import jax.numpy as jnp
import pytest

from launch import check_gpu
from rae_dit.models import float8


def test_a_wrong_scale_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < check_gpu.float8_error() < 0.06
    right = float8.multiply
    monkeypatch.setattr(float8, "multiply", lambda *args: 1.1 * right(*args))
    assert check_gpu.float8_error() > 0.09


def test_nan_is_no_small_distance() -> None:
    exact = [jnp.ones(3), jnp.arange(3.0)]
    assert check_gpu.distance(exact, exact) == 0
    assert not check_gpu.distance([jnp.ones(3), jnp.full(3, jnp.nan)], exact) <= 1e9
    assert check_gpu.distance([jnp.ones(3), 2 * jnp.arange(3.0)], exact) == pytest.approx(1)


def test_attention_in_half_precision_is_within_its_bound() -> None:
    assert 1e-4 < check_gpu.attention_error(33) < check_gpu.HALF
