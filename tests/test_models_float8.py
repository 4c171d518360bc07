"""Products of 8-bit floats: their definition in NumPy, gradients, and networks made of them."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from support.small_ddt import T, X, Y, awake_ddt
from support.small_run import small_config

from rae_dit.config import ConfigError
from rae_dit.kernels.rounding import round_both_ways_gpu
from rae_dit.models import float8
from rae_dit.models.merge import merge_for_loop
from rae_dit.sampling.latents import sample_latents

RANDOM = np.random.default_rng(0)
TOKENS = (RANDOM.standard_normal((2, 5, 48)) * 10.0 ** RANDOM.integers(-6, 7, (2, 5, 1))).astype(
    "f"
)
KERNEL = (RANDOM.standard_normal((48, 32)) * 10.0 ** RANDOM.integers(-3, 4, 32)).astype("f")
BIAS = RANDOM.standard_normal(32).astype("f")
GRADIENT = RANDOM.standard_normal((2, 5, 32)).astype("f") * np.float32(10) ** RANDOM.integers(
    -2, 3, (2, 5, 1)
).astype("f")


def rounded(x: np.ndarray, axis: int) -> np.ndarray:
    """The nearest numbers that e4m3 and a scale for each line along `axis` can tell."""
    scale = np.abs(x).max(axis, keepdims=True) / np.float32(448)
    return (x * (1 / scale)).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale


def test_linear_and_its_gradients_are_those_of_rounded_factors():
    arguments = (jnp.asarray(TOKENS), jnp.asarray(KERNEL), jnp.asarray(BIAS))
    value, pull_back = jax.vjp(float8.linear, *arguments)
    expected = rounded(TOKENS, -1) @ rounded(KERNEL, 0) + BIAS
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(float8.linear(*arguments), value, rtol=1e-6)
    of_tokens, of_kernel, of_bias = pull_back(jnp.asarray(GRADIENT))
    expected = rounded(GRADIENT, -1) @ rounded(KERNEL, 1).T
    np.testing.assert_allclose(of_tokens, expected, atol=1e-5 * np.abs(expected).max())

    # each token's scale moves to its gradient, and all gradients get one scale, equation (4)
    tokens, gradient = TOKENS.reshape(10, 48), GRADIENT.reshape(10, 32)
    scale = np.abs(tokens).max(1, keepdims=True) / np.float32(448)
    scaled = rounded((scale * gradient).reshape(1, -1), -1).reshape(10, 32)
    expected = (rounded(tokens, -1) / scale).T @ scaled
    np.testing.assert_allclose(of_kernel, expected, atol=1e-4 * np.abs(expected).max())
    exact = tokens.T.astype(np.float64) @ gradient
    assert np.linalg.norm(of_kernel - exact) < 0.04 * np.linalg.norm(exact)
    np.testing.assert_allclose(of_bias, gradient.sum(0), rtol=1e-5)


def test_rounding_is_at_most_a_sixteenth_of_a_number_and_a_token_is_alone():
    numbers, scale = float8.quantize(jnp.asarray(TOKENS))
    error = np.abs(np.float64(numbers) * scale - TOKENS)
    smallest = np.abs(TOKENS).max(-1, keepdims=True) / 448 * 2.0**-6  # below, spacing is constant
    assert (error <= np.maximum(np.abs(TOKENS), smallest) * 2.0**-4 * 1.0001).all()
    assert error.max() > 0
    product = float8.linear(jnp.asarray(TOKENS), jnp.asarray(KERNEL), jnp.asarray(BIAS))
    other = TOKENS.copy()
    other[1] *= 1e3
    np.testing.assert_array_equal(float8.linear(jnp.asarray(other), KERNEL, BIAS)[0], product[0])


def test_zeros_stay_zeros_and_what_is_not_finite_is_seen():
    x = jnp.zeros((3, 8)).at[1, 2].set(jnp.nan).at[2, 0].set(jnp.inf)
    y = np.asarray(float8.linear(x, jnp.ones((8, 4)), jnp.zeros(4)))
    assert (y[0] == 0).all()
    assert np.isnan(y[1:]).all()


def test_a_token_of_zeros_does_not_coarsen_the_others_gradient():
    """Its scale is 0, not 1: beside small tokens, 1 would be the largest."""
    x, kernel, gradient = 1e-4 * TOKENS[0, :, :8] / np.abs(TOKENS[0]).max(), KERNEL[:8], GRADIENT[0]
    beside = np.concatenate([x, np.zeros_like(x)]), np.concatenate([gradient, gradient])

    def of_kernel(x, gradient):
        return jax.vjp(float8.linear, jnp.asarray(x), kernel, BIAS)[1](jnp.asarray(gradient))[1]

    np.testing.assert_array_equal(of_kernel(*beside), of_kernel(x, gradient))
    assert (of_kernel(np.zeros_like(x), gradient) == 0).all()
    assert np.isnan(of_kernel(np.where(x > 0, np.nan, x), gradient)).all()


@pytest.mark.parametrize("changes", [{}, {"use_swiglu": False}], ids=["swiglu", "gelu"])
def test_network_is_close_to_the_exact_one_and_weights_rounded_once_change_nothing(changes):
    exact, eighth = awake_ddt(**changes), awake_ddt(float8=True, **changes)
    reference = exact(X, T, Y)
    error = jnp.linalg.norm(eighth(X, T, Y) - reference) / jnp.linalg.norm(reference)
    assert 1e-4 < float(error) < 0.03

    once = merge_for_loop(*nnx.split(exact), float8=True)
    np.testing.assert_allclose(eighth(X, T, Y), once(X, T, Y), atol=1e-6)

    noise = jnp.asarray(X)
    one = sample_latents(eighth, noise, Y, steps=3)
    other = sample_latents(exact, noise, Y, steps=3, precision="fp8")
    plain = sample_latents(exact, noise, Y, steps=3)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert 1e-5 < float(jnp.abs(one - plain).max()) < 0.1


@pytest.mark.parametrize("changes", [{}, {"use_swiglu": False}], ids=["swiglu", "gelu"])
def test_all_linear_layers_of_a_block_have_three_products_of_8_bit_floats(changes):
    """Forward, of the input's gradient, and of the weight's: of qkv, proj and the MLP's two."""
    graph, parameters = nnx.split(awake_ddt(float8=True, scan_layers=False, **changes))

    def loss(parameters: nnx.State) -> jax.Array:
        return jnp.sum(nnx.merge(graph, parameters)(X, T, Y) ** 2)

    text = str(jax.make_jaxpr(jax.grad(loss))(parameters))
    products = re.findall(r"dot_general\[.*?\] (\w+) (\w+)", text, re.DOTALL)
    kinds = dict(re.findall(r"(\w+):(\w+)\[", text))
    eighths = [pair for pair in products if {kinds[name] for name in pair} == {"f8_e4m3fn"}]
    blocks = sum(stack.depth for stack in nnx.merge(graph, parameters).stacks().values())
    assert len(eighths) == 3 * 4 * blocks


@pytest.mark.parametrize(
    ("platform", "devices", "tokens", "takes"),
    [("gpu", 1, 64, True), ("gpu", 1, 40, False), ("gpu", None, 64, False), ("cpu", 1, 64, False)],
)
def test_the_kernel_rounds_where_it_can(platform, devices, tokens, takes, monkeypatch):
    calls = []

    def interpreted(*arguments):
        calls.append(arguments[0].shape)
        return round_both_ways_gpu(*arguments, interpret=True)

    monkeypatch.setattr(float8, "target_devices", lambda: (platform, devices))
    monkeypatch.setattr(float8, "round_both_ways_gpu", interpreted)
    x = RANDOM.standard_normal((tokens, 32)).astype("f")
    value, pull_back = jax.vjp(float8.linear, x, jnp.eye(32), jnp.zeros(32))
    pull_back(value)
    assert calls == ([(tokens, 32)] * 2 if takes else [])


def test_an_objective_without_such_products_refuses_the_precision():
    assert small_config(precision="fp8").is_half
    with pytest.raises(
        ConfigError, match=r"^precision: got 'fp8'; expected another: objective 'rec"
    ):
        small_config(objective="reconstruction", precision="fp8")
