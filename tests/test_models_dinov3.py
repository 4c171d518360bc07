"""DINOv3 and the read-out of several layers against RAEv2's golden file."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from support.golden_files import GOLDEN, arrays

from rae_dit.architecture import Compute
from rae_dit.weights.huggingface import read_encoder
from rae_dit.weights.mapping import WeightsError

SETTINGS = json.loads((GOLDEN / "raev2" / "rae_dinov3.json").read_text())


@pytest.fixture(scope="module")
def golden():
    return arrays("raev2/rae_dinov3")


@pytest.fixture(scope="module")
def read():
    def read(**changes):
        return read_encoder(
            GOLDEN / "raev2" / "rae_dinov3_encoder",
            Compute(),
            input_size=SETTINGS["resolution"],
            grid=None,
            **changes,
        )[0]

    return read


def test_hidden_states(read, golden):
    encoder = read()
    image = jnp.asarray(golden["normalised"].transpose(0, 2, 3, 1))
    layers = tuple(range(encoder.trunk.depth))
    for mine, reference in zip(
        encoder.block_outputs(image, layers), golden["hidden_states"], strict=True
    ):
        np.testing.assert_allclose(mine, reference[:, 5:], atol=2e-5)


def test_tokens_of_the_last_layer_and_of_several(read, golden):
    image = jnp.asarray(golden["normalised"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(read()(image), golden["tokens_k1"], atol=1e-5)
    several = read(layers=tuple(SETTINGS["layers"]), add_mean=True)
    np.testing.assert_allclose(several(image), golden["tokens_mls"], atol=1e-5)


def test_keys_get_no_bias_whatever_is_stored(read, golden):
    image = jnp.asarray(golden["normalised"].transpose(0, 2, 3, 1))
    encoder = read()
    bias = encoder.trunk.blocks.attention.qkv.bias
    before = encoder(image)
    width = SETTINGS["encoder_keys"]["norm.weight"][0]
    bias[...] = bias[...].at[:, width : 2 * width].set(1.0)
    np.testing.assert_array_equal(encoder(image), before)


def test_layers_that_are_not_there_are_refused(read):
    with pytest.raises(WeightsError, match=r"layers: got \(1, 5\); expected numbers of the 5"):
        read(layers=(1, 5))
