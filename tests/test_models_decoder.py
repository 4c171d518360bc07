"""The decoder: positions, patches, sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.golden_files import GOLDEN

from rae_dit.architecture import Compute, DecoderArchitecture
from rae_dit.models.decoder import Decoder, decoder_positions

SIZES = {
    "in_width": 10,
    "grid": 3,
    "patch_size": 2,
    "hidden_size": 16,
    "depth": 2,
    "num_heads": 2,
    "intermediate_size": 24,
}
FULL = {
    "ViTB": {"hidden_size": 768, "depth": 12, "num_heads": 12, "intermediate_size": 3072},
    "ViTL": {"hidden_size": 1024, "depth": 24, "num_heads": 16, "intermediate_size": 4096},
    "ViTXL": {"hidden_size": 1152, "depth": 28, "num_heads": 16, "intermediate_size": 4096},
}


def decoder(*, compute=Compute(), train_constants=False, **changes):
    return Decoder(
        DecoderArchitecture(**(SIZES | changes)),
        compute,
        train_constants=train_constants,
        rngs=nnx.Rngs(0),
    )


def tokens(batch=2):
    return np.random.default_rng(0).standard_normal((batch, 9, 10)).astype(np.float32)


def test_each_token_becomes_one_patch_when_nothing_mixes_them():
    model = decoder()
    blocks = model.trunk.blocks
    for linear in (blocks.attention.proj, blocks.mlp.fc2):
        linear.kernel[...] = jnp.zeros_like(linear.kernel[...])
        linear.bias[...] = jnp.zeros_like(linear.bias[...])
    changed = tokens()
    changed[:, 5] += 1  # row 1, column 2
    difference = np.abs(model(changed) - model(tokens())).max(axis=(0, 3)) > 1e-6
    expected = np.zeros((6, 6), bool)
    expected[2:4, 4:6] = True
    np.testing.assert_array_equal(difference, expected)


def test_positions_are_zero_for_cls_and_columns_come_first():
    table = decoder_positions(8, 3)
    np.testing.assert_array_equal(table[0], 0)
    row, column = table[1:, 4:], table[1:, :4]
    np.testing.assert_array_equal(column[0:3], column[3:6])
    np.testing.assert_array_equal(row[0], row[1])
    np.testing.assert_allclose(column[1, :2], [np.sin(1), np.sin(0.01)], rtol=1e-6)
    np.testing.assert_array_equal(decoder_positions(8, 3, spacing=2.0)[2], table[3])


def test_positions_are_a_leaf_that_is_used_and_trained_if_asked():
    def derivative(train_constants):
        graph, state = nnx.split(decoder(train_constants=train_constants))
        params = nnx.to_pure_dict(state)
        np.testing.assert_array_equal(params["position"], decoder_positions(16, 3))
        way = np.zeros((10, 16), np.float32)
        way[0], way[5] = 1, np.arange(16)  # CLS and a patch

        def image(position):
            return nnx.merge(graph, params | {"position": position})(tokens())

        here = params["position"]
        slope = jax.jit(lambda p: jax.jvp(image, (p,), (way,))[1])(here)
        return slope, (jax.jit(image)(here + 1e-2 * way) - jax.jit(image)(here - 1e-2 * way)) / 2e-2

    fixed, moved = derivative(False)
    assert not np.any(fixed)
    trained, expected = derivative(True)
    np.testing.assert_allclose(trained, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(moved, expected)
    assert np.abs(expected).max() > 1e-2


def test_scan_is_the_loop():
    scanned, unrolled = decoder()(tokens()), decoder(compute=Compute(scan_layers=False))(tokens())
    assert scanned.shape == (2, 6, 6, 3)
    np.testing.assert_allclose(scanned, unrolled, atol=2e-6)


def test_bfloat16_computes_in_bfloat16_and_returns_float32():
    half = decoder(compute=Compute(dtype="bfloat16"))
    assert half.embed(jnp.zeros((1, 10), jnp.bfloat16)).dtype == jnp.bfloat16
    image = half(tokens())
    assert image.dtype == jnp.float32
    full = decoder()(tokens())
    assert 1e-5 < np.linalg.norm(image - full) / np.linalg.norm(full) < 2e-2


def test_tokens_of_another_encoder_are_refused():
    with pytest.raises(ValueError, match=r"got shape \(9, 12\); expected \(9, 10\)"):
        decoder()(np.zeros((1, 9, 12), np.float32))


@pytest.mark.parametrize("size", FULL)
def test_released_sizes_have_the_released_number_of_parameters(size):
    arguments = {"in_width": 768, "grid": 16, "patch_size": 16} | FULL[size]
    abstract = nnx.eval_shape(lambda: decoder(**arguments))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract)))
    expected = json.loads((GOLDEN / "manifests.json").read_text())[f"decoder_{size}_params"]
    assert count == expected
