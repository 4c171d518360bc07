"""Laws of the layers: patches, positions, rotations, norms and the stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from rae_dit.models import attention, layers, mlp, rotary, stack


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_patches_are_cut_in_raster_order_and_put_back():
    image = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    patches = layers.patchify(image, 2)
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[0, 1], image[0, 0:2, 2:4].reshape(-1))
    np.testing.assert_array_equal(layers.unpatchify(patches, 2, 2, 3), image)


def test_sincos_encodes_the_column_first():
    table = layers.sincos_position_embedding(8, 3, 5).reshape(3, 5, 8)
    np.testing.assert_array_equal(table[0, :, :4], table[2, :, :4])  # rows agree: it is the column
    np.testing.assert_array_equal(table[:, 0, 4:], table[:, 3, 4:])
    np.testing.assert_allclose(table[0, 2, :4], [*np.sin([2, 0.02]), *np.cos([2, 0.02])], atol=1e-7)


def test_rotation_encodes_the_row_first_and_keeps_length():
    cos, sin = (angle.reshape(3, 5, 8) for angle in rotary.rotary_angles(8, 3, 5))
    np.testing.assert_array_equal(cos[1, 0, :4], cos[1, 4, :4])
    np.testing.assert_array_equal(sin[0, 3, 4:], sin[2, 3, 4:])
    x = normal(2, 15, 3, 8)
    turned = rotary.apply_rope(x, cos.reshape(15, 8), sin.reshape(15, 8))
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_rotated_products_depend_on_the_difference_of_positions():
    cos, sin = rotary.rotary_angles(8, 1, 6)
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)
    place = lambda x: rotary.apply_rope(jnp.broadcast_to(x, (1, 6, 1, 8)), cos, sin)[0, :, 0]  # noqa: E731
    products = place(q) @ place(k).T
    np.testing.assert_allclose(jnp.diagonal(products, 2)[0], jnp.diagonal(products, 2), rtol=1e-4)
    assert not np.allclose(products[0, 2], products[2, 0])


def test_norms_are_normalised_in_float32():
    x = 100 + normal(2, 3, 16)
    y = layers.LayerNorm(16, eps=0.0, affine=False)(x)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-4)
    y = layers.RMSNorm(16)(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(jnp.square(y.astype(jnp.float32)).mean(-1), 1, atol=1e-2)


def test_default_linear_is_initialised_as_in_torch():
    linear = layers.Linear(400, 300, axes=("embed", "mlp"), dtype=jnp.float32, rngs=nnx.Rngs(0))
    for value in (linear.kernel[...], linear.bias[...]):
        assert abs(value).max() <= 1 / 20
        assert value.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.1)


def make_stack(scan, remat="none", depth=3):
    def make_block(rngs):
        return mlp.MLP(8, 16, activation=mlp.gelu_exact, dtype=jnp.float32, rngs=rngs)

    return stack.Stack(
        make_block, depth, scan=scan, remat=remat, dtype=jnp.float32, rngs=nnx.Rngs(0)
    )


def value_and_gradient(blocks, x):
    graph, state = nnx.split(blocks)
    function = lambda state: jnp.sum(nnx.merge(graph, state)(x) ** 2)  # noqa: E731
    return jax.value_and_grad(function)(state)


@pytest.mark.parametrize(("scan", "remat"), [(False, "none"), (True, "full"), (False, "dots")])
def test_stack_scanned_is_stack_unrolled_with_and_without_remat(scan, remat):
    x = normal(2, 4, 8)
    expected = value_and_gradient(make_stack(True), x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        value_and_gradient(make_stack(scan, remat), x),
        expected,
    )


@pytest.mark.parametrize("scan", [True, False])
def test_remat_is_really_set(scan):
    x = normal(2, 4, 8)

    def wrapped(remat):
        jaxpr = str(jax.make_jaxpr(lambda x: make_stack(scan, remat)(x))(x))
        return "remat" in jaxpr or "checkpoint" in jaxpr  # its name depends on the version

    assert (wrapped("none"), wrapped("dots"), wrapped("full")) == (False, True, True)


def test_layers_of_a_stack_differ():
    kernel = make_stack(True).blocks.fc1.kernel[...]
    assert kernel.shape == (3, 8, 16)
    assert not np.allclose(kernel[0], kernel[1])


def test_unstack_has_a_concatenation_as_its_transpose():
    stacked = {"a": normal(3, 4)}

    def loss(stacked):
        return sum(jnp.sum((i + 1) * part["a"]) for i, part in enumerate(stack.unstack(stacked, 3)))

    np.testing.assert_array_equal(jax.grad(loss)(stacked)["a"][:, 0], [1, 2, 3])
    names = [equation.primitive.name for equation in jax.make_jaxpr(jax.grad(loss))(stacked).eqns]
    assert "concatenate" in names
    assert not {"pad", "scatter-add"} & set(names)


def test_padded_swiglu_gives_the_same_numbers_and_gradients(monkeypatch):
    def run(wide: int) -> tuple[jax.Array, dict]:
        monkeypatch.setattr(mlp, "WIDE", wide)
        module = mlp.SwiGLU(12, 37, dtype=jnp.float32, rngs=nnx.Rngs(0))
        assert module.padding == (0 if wide else 91)
        graph, state = nnx.split(module)
        x = jax.random.normal(jax.random.key(1), (2, 3, 12))
        return jax.value_and_grad(lambda state: jnp.sum(jnp.sin(nnx.merge(graph, state)(x))))(state)

    (plain, plain_gradient), (padded, padded_gradient) = run(64), run(0)
    assert jnp.allclose(plain, padded, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(plain_gradient), jax.tree.leaves(padded_gradient), strict=True):
        assert a.shape == b.shape
        assert jnp.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_stack_casts_its_matrices_and_nothing_else():
    def make_block(rngs: nnx.Rngs) -> mlp.MLP:
        return mlp.MLP(4, 8, activation=mlp.gelu_exact, dtype=jnp.bfloat16, rngs=rngs)

    made = stack.Stack(
        make_block, 2, scan=False, remat="none", dtype=jnp.bfloat16, rngs=nnx.Rngs(0)
    )
    cast = nnx.map_state(made.cast_matrix, nnx.split(made.blocks)[1])
    assert cast["fc1"]["kernel"][...].dtype == jnp.bfloat16
    assert cast["fc1"]["bias"][...].dtype == jnp.float32


@pytest.mark.parametrize("x", [-6.0, -1.0, 0.0, 0.5, 4.0])
def test_gelu_exact_is_torchs(x):
    expected = torch.nn.functional.gelu(torch.tensor(x)).item()
    assert abs(float(mlp.gelu_exact(jnp.float32(x))) - expected) < 1e-6


def test_attention_of_an_odd_length_is_plain_attention():
    q, k, v = (normal(2, 5, 3, 4, seed=seed) for seed in range(3))

    def padded(q, k, v):
        return attention.odd_length_attention(q, k, v, implementation="xla")

    def plain(q, k, v):
        return attention.dot_product_attention(q, k, v, implementation="xla")

    def loss(function):
        return lambda *arguments: jnp.sum(jnp.sin(function(*arguments)))

    np.testing.assert_allclose(padded(q, k, v), plain(q, k, v), atol=1e-6)
    for a, b in zip(
        jax.grad(loss(padded), (0, 1, 2))(q, k, v),
        jax.grad(loss(plain), (0, 1, 2))(q, k, v),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("key_bias", [True, False])
def test_a_token_added_before_the_projections_changes_neither_result_nor_gradient(key_bias):
    layer = attention.SelfAttention(
        12, 3, key_bias=key_bias, implementation="xla", dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    graph, parameters = nnx.split(layer)
    angle = jnp.arange(20.0).reshape(5, 4)
    rope = (jnp.cos(angle), jnp.sin(angle))

    def plain(parameters, x):
        return nnx.merge(graph, parameters)(x, rope)

    def padded(parameters, x):
        return nnx.merge(graph, parameters).mix_odd(x, rope, implementation="xla")

    def value_and_gradients(function):
        return jax.jit(
            jax.value_and_grad(lambda *inputs: jnp.sum(jnp.sin(function(*inputs))), (0, 1))
        )(parameters, normal(2, 5, 12, seed=3))

    wanted, found = value_and_gradients(plain), value_and_gradients(padded)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("tokens", [6, 7])
def test_cudnn_s_odd_lengths_are_padded_before_the_projections(tokens, monkeypatch):
    layer = attention.SelfAttention(
        16, 2, implementation="cudnn", dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    lengths = []
    masked_attention = attention.masked_attention
    plain_attention = jax.nn.dot_product_attention

    def masked(q, k, v, tokens, *, implementation):
        lengths.append(q.shape[1])
        return masked_attention(q, k, v, tokens, implementation="xla")

    monkeypatch.setattr(attention, "masked_attention", masked)
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *a, implementation, **k: plain_attention(*a, implementation="xla", **k),
    )
    x = normal(2, tokens, 16)
    found = layer(x)
    assert lengths == ([tokens + 1] if tokens % 2 else [])
    layer.implementation = "xla"
    np.testing.assert_allclose(found, layer(x), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("tokens", [6, 7])
def test_cudnn_s_heads_are_checked_at_every_length(tokens):
    layer = attention.SelfAttention(
        12, 3, implementation="cudnn", dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    with pytest.raises(ValueError, match="'cudnn' for heads of 4 channels; expected a multiple"):
        layer(normal(2, tokens, 12))
