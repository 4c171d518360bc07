"""Velocities and data are two names of one prediction."""

import jax.numpy as jnp
import numpy as np

from rae_dit.diffusion.flow import interpolate, velocity_target
from rae_dit.diffusion.prediction import data_of, velocity_of

RNG = np.random.default_rng(0)
X, NOISE = (jnp.asarray(RNG.standard_normal((6, 2, 2, 3)), jnp.float32) for _ in range(2))
T = jnp.array([0.0, 0.02, 0.05, 0.3, 0.9, 1.0])


def test_there_and_back_is_the_identity():
    x_t = interpolate(X, NOISE, T)
    np.testing.assert_allclose(data_of(velocity_of(X, x_t, T), x_t, T), X, atol=1e-6)


def test_above_the_floor_it_is_the_derivative_of_the_path():
    velocity = velocity_of(X, interpolate(X, NOISE, T), T)
    np.testing.assert_allclose(velocity[2:], velocity_target(X, NOISE)[2:], atol=1e-5)
    np.testing.assert_allclose(velocity[1], 0.4 * velocity_target(X, NOISE)[1], atol=1e-5)
    np.testing.assert_array_equal(velocity[0], 0)
