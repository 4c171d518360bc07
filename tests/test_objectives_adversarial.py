"""Losses of the two sides at values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from rae_dit.objectives.adversarial import adaptive_weight, generator_loss, hinge, vanilla

REAL = jnp.asarray([[2.0, 0.5], [-1.0, 1.0]])
FAKE = jnp.asarray([[-2.0, 0.0], [0.5, -1.0]])


def test_hinge_asks_for_a_margin_of_one():
    # real: 0, 0.5, 2, 0; fake: 0, 1, 1.5, 0
    np.testing.assert_allclose(hinge(REAL, FAKE), (2.5 / 4 + 2.5 / 4) / 2)
    gradient = jax.grad(hinge, argnums=(0, 1))(REAL, FAKE)
    np.testing.assert_allclose(gradient[0], jnp.asarray([[0, -1], [-1, 0]]) / 8)
    np.testing.assert_allclose(gradient[1], jnp.asarray([[0, 1], [1, 0]]) / 8)


def test_vanilla_is_the_cross_entropy_of_both_classes():
    real, fake = np.asarray(REAL), np.asarray(FAKE)
    wanted = -np.log(1 / (1 + np.exp(-real))).mean() - np.log(1 - 1 / (1 + np.exp(-fake))).mean()
    np.testing.assert_allclose(vanilla(REAL, FAKE), wanted / 2, rtol=1e-6)
    np.testing.assert_allclose(vanilla(jnp.full((1, 1), 80.0), jnp.full((1, 1), 99.0)), 49.5)


def test_the_decoder_wants_high_logits():
    np.testing.assert_allclose(generator_loss(FAKE), 2.5 / 4)


def test_adaptive_weight_is_the_clipped_ratio_of_norms():
    a, b = jnp.asarray([[3.0, 4.0]]), jnp.asarray([[0.0, 2.0]])
    np.testing.assert_allclose(adaptive_weight(a, b), 2.5, rtol=1e-5)
    np.testing.assert_allclose(adaptive_weight(a, 0 * b), 1e4)
    np.testing.assert_allclose(adaptive_weight(0 * a, 0 * b), 0)
    np.testing.assert_allclose(adaptive_weight(1e-6 * a, 0 * b), 5, rtol=1e-3)  # 1e-6 below
