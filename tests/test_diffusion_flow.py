"""Laws of the path, the time distributions and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rae_dit.diffusion import flow


@pytest.fixture
def pair():
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], (3, 2, 2, 5)), jax.random.normal(keys[1], (3, 2, 2, 5))


def test_path_starts_at_data_and_ends_at_noise(pair):
    x, noise = pair
    np.testing.assert_array_equal(flow.interpolate(x, noise, jnp.zeros(3)), x)
    np.testing.assert_array_equal(flow.interpolate(x, noise, jnp.ones(3)), noise)


def test_target_is_the_derivative_of_the_path(pair):
    x, noise = pair
    t = jnp.array([0.1, 0.5, 0.9])
    _, derivative = jax.jvp(lambda t: flow.interpolate(x, noise, t), (t,), (jnp.ones(3),))
    np.testing.assert_allclose(derivative, flow.velocity_target(x, noise), atol=1e-6)


def test_each_sample_has_its_own_time(pair):
    x, noise = pair
    t = jnp.array([0.0, 0.25, 1.0])
    whole = flow.interpolate(x, noise, t)
    for i in range(3):
        alone = flow.interpolate(x[i : i + 1], noise[i : i + 1], t[i : i + 1])
        np.testing.assert_array_equal(whole[i], alone[0])


def test_loss_is_zero_for_the_true_velocity_and_a_mean_square_otherwise(pair):
    x, noise = pair
    target = flow.velocity_target(x, noise)
    np.testing.assert_array_equal(flow.velocity_loss(target, x, noise), np.zeros(3))
    np.testing.assert_allclose(flow.velocity_loss(target + 2, x, noise), np.full(3, 4.0), rtol=1e-5)


def test_shift_fixes_the_ends_and_inverts():
    t = np.linspace(0, 1, 11)
    shifted = flow.shift_time(t, 6.93)
    assert (shifted[0], shifted[-1]) == (0.0, 1.0)
    assert np.all(np.diff(shifted) > 0)
    np.testing.assert_allclose(flow.shift_time(shifted, 1 / 6.93), t, atol=1e-12)
    np.testing.assert_array_equal(flow.shift_time(t, 1.0), t)


def test_shift_of_the_released_latents():
    assert flow.time_shift(768 * 16 * 16) == pytest.approx(6.9282, abs=1e-4)
    assert flow.time_shift(768 * 32 * 32) == pytest.approx(13.8564, abs=1e-4)
    assert flow.time_shift(1024 * 16 * 16) == pytest.approx(8.0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_times_follow_their_distribution(distribution, shift):
    t = flow.sample_time(jax.random.key(1), 20_000, distribution=distribution, shift=shift)
    unshifted = flow.shift_time(np.asarray(t, np.float64), 1 / shift)
    assert unshifted.min() >= 0
    assert unshifted.max() <= flow.TIME_END + 1e-6

    def cdf(t):
        if distribution == "uniform":
            return t / flow.TIME_END
        logit = lambda t: np.log(t / (1 - t))  # noqa: E731
        return scipy.stats.norm.cdf(logit(t))

    assert scipy.stats.kstest(unshifted, cdf).pvalue > 0.01


def test_unknown_distribution_is_named():
    with pytest.raises(ValueError, match=r"'normal'.*'uniform' or 'logit_normal'"):
        flow.sample_time(jax.random.key(0), 2, distribution="normal", shift=1.0)
