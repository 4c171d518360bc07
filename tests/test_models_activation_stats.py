"""Activation statistics of a DiT^DH equal those of an unrolled run that is spied upon."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_ddt import T, X, Y, awake_ddt

from rae_dit.models import attention
from rae_dit.models.activation_stats import activation_stats, max_product
from rae_dit.models.stack import Stack

BLOCKS = {"depth": (2, 2), "hidden_size": (16, 24)}


def compiled(function, ddt):
    """function(ddt), compiled once; numpy."""
    graph, state = nnx.split(ddt)
    return jax.tree.map(np.asarray, jax.jit(lambda state: function(nnx.merge(graph, state)))(state))


def stats_of(ddt):
    return activation_stats(ddt, X, T, Y)


def pass_by(ddt):
    """Residual streams, queries and keys, as they pass by in an unrolled run."""
    streams, heads = [], []
    kernel = attention.dot_product_attention

    def spy(q, k, v, *, implementation):
        heads.append((q, k))
        return kernel(q, k, v, implementation=implementation)

    def apply_stack(stack: Stack, x, *conditions):
        graph, stacked = nnx.split(stack.blocks)
        for number in range(stack.depth):
            block = nnx.merge(graph, jax.tree.map(lambda leaf, i=number: leaf[i], stacked))
            x = block(x, *conditions)
            streams.append(x)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "dot_product_attention", spy)
        ddt(X, T, Y, apply_stack=apply_stack)
    return streams, heads


@pytest.mark.parametrize(
    ("scan", "switches"), [(True, {}), (False, {"use_qknorm": True}), (False, {"use_rope": False})]
)
def test_it_is_what_passes_by(scan, switches):
    ddt = awake_ddt(**BLOCKS, **switches, scan_layers=scan)
    seen = compiled(stats_of, ddt)
    assert list(seen) == ["backbone", "head"]
    streams, heads = compiled(pass_by, ddt)
    rms = [np.sqrt(np.mean(np.square(x, dtype=np.float64))) for x in streams]
    logits = [np.einsum("bnhd,bmhd->bhnm", q, k).max() / np.sqrt(q.shape[-1]) for q, k in heads]
    found = [np.concatenate(values) for values in zip(*seen.values(), strict=True)]
    np.testing.assert_allclose(found, [rms, logits], rtol=1e-4)
    assert len(set(np.round(logits, 3))) == 4  # blocks differ, so their order is tested


def test_it_is_float32_in_a_bfloat16_model():
    half = compiled(stats_of, awake_ddt(**BLOCKS, dtype="bfloat16"))
    full = compiled(stats_of, awake_ddt(**BLOCKS))
    for stack in ("backbone", "head"):
        assert {leaf.dtype for leaf in half[stack]} == {np.dtype("float32")}
        np.testing.assert_allclose(half[stack].rms, full[stack].rms, rtol=0.03)
        np.testing.assert_allclose(half[stack].logit, full[stack].logit, rtol=0.1)
        assert (half[stack].logit != np.float32(jnp.bfloat16(half[stack].logit))).all()


@pytest.mark.parametrize(("tokens", "place"), [(300, 299), (128, 0), (5, 2)])
def test_the_largest_product_wherever_it_is(tokens, place):
    """All products are negative but for the query at one place; 300 is no multiple of a block."""
    rng = np.random.default_rng(0)
    q, k = rng.uniform(0.1, 1, (2, 2, tokens, 3, 8)).astype(np.float32)
    q = -q
    for sign in (1, -1):  # even where the largest is negative
        q[1, place, 2] = sign * 0.05
        expected = np.einsum("bnhd,bmhd->bhnm", q, k).max()
        assert float(max_product(q, k)) == pytest.approx(expected, rel=1e-6)
        assert np.sign(expected) == sign


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    def temporaries(tokens):
        heads = jax.ShapeDtypeStruct((2, tokens, 4, 32), jnp.float32)
        return jax.jit(max_product).lower(heads, heads).compile().memory_analysis()

    small, large = (temporaries(tokens).temp_size_in_bytes for tokens in (1024, 4096))
    assert large < 4.5 * small
    assert large < 2 * 4 * 4096**2 * 4 / 8  # an eighth of all products
