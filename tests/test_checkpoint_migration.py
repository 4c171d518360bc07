"""Leaves that checkpoints of earlier versions lack are filled in, and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.checkpoint.migration import stored_leaves, with_added_leaves


def structs(names):
    return {name: jax.ShapeDtypeStruct((5, 8), np.float32, sharding=device()) for name in names}


def device():
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


DECODER = ["params/cls_token", "params/predict/kernel", "opt_state/1/0/mu/predict/kernel"]
WANTED = [*DECODER[:1], "params/position", *DECODER[1:], "opt_state/1/0/mu/position"]


def test_a_decoder_gets_sines_and_cosines_and_moments_of_zero():
    stored = stored_leaves(DECODER, structs(WANTED))
    assert list(stored) == DECODER
    named = dict.fromkeys(DECODER, jnp.ones((5, 8)))
    filled = with_added_leaves(named, structs(WANTED))
    assert list(filled) == WANTED
    assert all(filled[name] is named[name] for name in DECODER)
    np.testing.assert_array_equal(filled["opt_state/1/0/mu/position"], np.zeros((5, 8)))
    row, column = np.float64([0, 0, 1, 1]), np.float64([0, 1, 0, 1])  # 2 x 2 after CLS, raster
    parts = [
        f(p[:, None] * [1, 0.01]) for p in (column, row) for f in (np.sin, np.cos)
    ]  # column first; frequencies 10000^-k/2
    expected = np.concatenate([np.zeros((1, 8)), np.concatenate(parts, axis=1)])
    np.testing.assert_allclose(filled["params/position"], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (["params/label_table"], ["params/position", "params/label_table"]),  # a DiT^DH
        (["rae/encoder/cls_token"], ["rae/encoder/position", "rae/encoder/cls_token"]),
        (["params/predict/kernel"], ["ema/position", "params/predict/kernel"]),
        (["params/position", *DECODER], WANTED[:4]),  # there already
        (DECODER, [*DECODER, "params/norm/weight"]),
    ],
)
def test_nothing_else_is_filled_in(stored, wanted):
    assert list(stored_leaves(stored, structs(wanted))) == wanted
