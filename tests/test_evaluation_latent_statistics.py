"""Latent statistics are exact, and so do not depend on how the work was shared."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from rae_dit.evaluation.latent_statistics import (
    LIMIT,
    MAX_IMAGES,
    Totals,
    mean_and_variance,
    merge,
    totals_of,
    zeros,
)
from rae_dit.training.sharding import make_mesh, shard_batch

SHAPE = (2, 2, 3)
BOUND = 2.0**-33  # of mean and deviation, as the module states it
count_up = jax.jit(totals_of)


def latents(number: int) -> np.ndarray:
    """Normalised tokens have no such range: from 2^-40 to 63, both signs."""
    rng = np.random.default_rng(0)
    size = 2.0 ** rng.uniform(-40, 5.97, (number, *SHAPE))
    return (size * rng.choice([-1, 1], size.shape)).astype(np.float32)


def total(values: np.ndarray, weight: np.ndarray | None = None) -> Totals:
    weight = np.ones(len(values), np.float32) if weight is None else weight
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, count_up(values, weight))


def assert_same_bits(one: Totals, other: Totals) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)
    for ours, theirs in zip(mean_and_variance(one), mean_and_variance(other), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_mean_and_deviation_are_those_of_rational_arithmetic_to_the_stated_bound():
    values = latents(37)
    mean, variance = mean_and_variance(total(values))
    assert mean.dtype == variance.dtype == np.float64
    for place in np.ndindex(SHAPE):
        numbers = [Fraction(float(x)) for x in values[(slice(None), *place)]]
        exact = sum(numbers) / 37
        spread = sum((x - exact) ** 2 for x in numbers) / 37
        rounding = 1e-15 * 64  # of float64, here and in the result
        assert abs(Fraction(mean[place]) - exact) < BOUND + rounding
        assert abs(variance[place] ** 0.5 - float(spread) ** 0.5) < BOUND + rounding


def test_numbers_that_need_no_rounding_give_the_nearest_float64():
    values = np.float32([1.5, -0.25, 2**-32, 63.0])[:, None, None, None] * np.ones(SHAPE, "f")
    mean, variance = mean_and_variance(total(values))
    numbers = [Fraction(float(x)) for x in values[:, 0, 0, 0]]
    exact = sum(numbers) / 4
    assert mean[0, 0, 0] == float(exact)
    assert variance[1, 1, 2] == float(sum((x - exact) ** 2 for x in numbers) / 4)


@pytest.mark.parametrize("units", [0.3, 0.75, -0.3, -0.75])
def test_the_smallest_numbers_are_rounded_to_the_nearest_unit(units):
    mean, _ = mean_and_variance(total(np.full((3, *SHAPE), units * 2**-32, np.float32)))
    np.testing.assert_allclose(mean, units * 2**-32, atol=BOUND, rtol=0)


def test_a_tiny_spread_about_a_large_mean_survives():
    values = np.float32(50) + np.float32(2**-18) * (np.arange(8) % 2).astype(np.float32)
    values = values[:, None, None, None] * np.ones(SHAPE, np.float32)
    _, variance = mean_and_variance(total(values))
    np.testing.assert_allclose(variance, 2.0**-38, rtol=1e-12)


def test_order_and_batch_size_leave_no_trace():
    values = latents(48)
    whole = total(values)
    shuffled = values[np.random.default_rng(1).permutation(48)]
    for size in (1, 7, 48):
        parts = [total(shuffled[first : first + size]) for first in range(0, 48, size)]
        added = zeros(SHAPE)
        for part in parts:
            added = merge(added, part)
        assert_same_bits(added, whole)


def test_two_halves_make_a_whole_whichever_comes_first():
    values = latents(21)
    left, right = total(values[:5]), total(values[5:])
    assert_same_bits(merge(left, right), total(values))
    assert_same_bits(merge(right, left), total(values))


def test_eight_devices_are_one():
    values, weight = latents(16), np.float32([1] * 13 + [0] * 3)
    placed = shard_batch({"latents": values, "weight": weight}, make_mesh(2))
    with jax.enable_x64(True):
        shared = count_up(placed["latents"], placed["weight"])
    assert len(placed["latents"].sharding.device_set) == 8
    assert_same_bits(shared, total(values[:13]))


def test_padding_does_not_count_whatever_is_in_it():
    values = latents(6)
    padded = np.concatenate([values, np.full((2, *SHAPE), np.nan, np.float32)])
    assert_same_bits(total(padded, np.float32([1] * 6 + [0] * 2)), total(values))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 64.0, -64.0])
def test_what_no_token_can_hold_is_refused(number):
    values = latents(4)
    values[2, 1, 0, 2] = number
    found = total(values)
    assert int(found.num_invalid) == 1
    with pytest.raises(ValueError, match="got 1 elements that are not finite or not in"):
        mean_and_variance(found)


def test_the_largest_sums_of_the_largest_numbers_fit():
    edge = np.nextafter(np.float32(LIMIT), np.float32(0))
    for number in (edge, -edge):
        one = total(np.full((1, *SHAPE), number, np.float32))
        for name in ("sum_q", "sum_aa", "sum_ab", "sum_bb"):
            assert abs(int(getattr(one, name)[0, 0, 0])) * MAX_IMAGES < 2**63
        many = jax.tree.map(lambda leaf: leaf * MAX_IMAGES, one)
        mean, variance = mean_and_variance(many)
        assert (mean == number).all()
        assert (variance == 0).all()


def test_no_images_and_too_many_are_refused():
    with pytest.raises(ValueError, match=r"^images: got 0 latents"):
        mean_and_variance(zeros(SHAPE))
    many = jax.tree.map(lambda leaf: leaf * (MAX_IMAGES + 1), total(latents(1)))
    with pytest.raises(ValueError, match=f"expected 1 to {MAX_IMAGES}"):
        mean_and_variance(many)


def test_without_64_bits_nothing_is_summed():
    with (
        pytest.warns(UserWarning, match="int64"),
        pytest.raises(RuntimeError, match="got False; expected totals_of in"),
    ):
        totals_of(jax.numpy.ones((1, *SHAPE)), jax.numpy.ones(1))
