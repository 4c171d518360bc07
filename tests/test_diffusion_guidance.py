"""Laws of guidance."""

import jax
import jax.numpy as jnp
import numpy as np

from rae_dit.diffusion import guidance

NULL = 10


def linear_model(offset):
    """A model whose label effect is visible: v = x t + label."""
    return lambda x, t, y: x * t[:, None] + y[:, None] + offset


X = jax.random.normal(jax.random.key(0), (3, 4))
T = jnp.array([0.2, 0.5, 0.9])
Y = jnp.array([1, 2, 3])


def test_scale_one_is_the_strong_model_and_zero_the_weak_one():
    model = linear_model(0.0)
    one = guidance.classifier_free(model, Y, null_label=NULL, scale=1.0)(X, T)
    zero = guidance.classifier_free(model, Y, null_label=NULL, scale=0.0)(X, T)
    np.testing.assert_allclose(one, model(X, T, Y), rtol=1e-6)
    np.testing.assert_allclose(zero, model(X, T, jnp.full(3, NULL)), rtol=1e-6)


def test_guidance_extrapolates_on_all_channels():
    guided = guidance.classifier_free(linear_model(0.0), Y, null_label=NULL, scale=3.0)(X, T)
    expected = X * T[:, None] + NULL + 3.0 * (Y[:, None] - NULL)
    np.testing.assert_allclose(guided, expected, rtol=1e-5)


def test_autoguidance_gives_both_models_the_same_label():
    seen = []

    def spy(x, t, y):
        seen.append(y)
        return x

    guidance.autoguidance(spy, spy, Y, scale=2.0)(X, T)
    assert len(seen) == 2
    np.testing.assert_array_equal(seen[0], seen[1])


def test_autoguidance_formula():
    guided = guidance.autoguidance(linear_model(0.0), linear_model(1.0), Y, scale=1.5)(X, T)
    np.testing.assert_allclose(guided, linear_model(-0.5)(X, T, Y), rtol=1e-5)


def test_cfg_evaluates_once_on_a_doubled_batch():
    batches = []

    def spy(x, t, y):
        batches.append(len(x))
        return x

    guidance.classifier_free(spy, Y, null_label=NULL, scale=2.0)(X, T)
    assert batches == [6]
