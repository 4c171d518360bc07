"""Laws of DiT^DH."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from support.small_ddt import SMALL, T, X, Y, awake_ddt, make_ddt, velocity

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.ddt import DDT
from rae_dit.models.ddt_block import DDTBlock
from rae_dit.sampling.latents import sample_latents

MANIFESTS = json.loads((Path(__file__).parent / "golden" / "manifests.json").read_text())


def test_velocity_is_zero_at_initialisation():
    np.testing.assert_array_equal(velocity(make_ddt(), X, T, Y), jnp.zeros_like(X))


def test_block_is_the_identity_at_initialisation():
    block = DDTBlock(16, 2, SMALL, Compute(attention="xla"), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    condition = jax.random.normal(jax.random.key(1), (2, 1, 16))
    np.testing.assert_array_equal(block(x, condition), x)


def test_every_input_matters():
    ddt = awake_ddt()
    before = velocity(ddt, X, T, Y)
    changed = {
        "time": (X, T.at[0].set(0.3), Y),
        "label": (X, T, Y.at[0].set(7)),
        "latent": (X.at[0, 0, 0, 0].add(1.0), T, Y),
    }
    for what, inputs in changed.items():
        after = velocity(ddt, *inputs)
        assert np.abs(after[0] - before[0]).max() > 1e-4, what
        np.testing.assert_allclose(after[1:], before[1:], atol=1e-6)  # samples do not mix


SWITCHES = [
    {},
    {"use_qknorm": True},
    {"use_swiglu": False},
    {"use_rope": False},
    {"use_rmsnorm": False},
    {"use_rmsnorm": False, "use_qknorm": True},
    {"use_pos_embed": False},
    {"patch_size": 2},
    {"hidden_size": (16, 16)},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_switch_works_and_scan_equals_unrolled(switch):
    scanned = velocity(awake_ddt(**switch, scan_layers=True), X, T, Y)
    unrolled = velocity(awake_ddt(**switch, scan_layers=False), X, T, Y)
    assert scanned.shape == X.shape
    assert np.isfinite(scanned).all()
    assert np.abs(scanned).max() > 1e-3
    np.testing.assert_allclose(scanned, unrolled, atol=1e-5)


def test_without_positions_tokens_are_exchangeable():
    ddt = awake_ddt(use_rope=False, use_pos_embed=False)
    flipped = velocity(ddt, X[:, ::-1], T, Y)[:, ::-1]
    np.testing.assert_allclose(flipped, velocity(ddt, X, T, Y), atol=1e-5)


@pytest.mark.parametrize("positions", ["use_rope", "use_pos_embed"])
def test_positions_break_the_symmetry(positions):
    ddt = awake_ddt(**({"use_rope": False, "use_pos_embed": False} | {positions: True}))
    flipped = velocity(ddt, X[:, ::-1], T, Y)[:, ::-1]
    assert np.abs(flipped - velocity(ddt, X, T, Y)).max() > 1e-4


def test_constants_have_a_gradient_only_if_they_are_trained():
    def gradient(train_constants):
        graph, state = nnx.split(awake_ddt(train_constants=train_constants))
        gradient = jax.jit(jax.grad(lambda s: jnp.sum(nnx.merge(graph, s)(X, T, Y) ** 2)))(state)
        return flatten_dict(nnx.to_pure_dict(gradient), sep=".")

    fixed, trained = gradient(False), gradient(True)
    constants = {"position", "time_embedding.frequency"}
    assert {name for name in fixed if not fixed[name].any()} == constants
    assert all(trained[name].any() for name in constants)
    # Positions are added to what `embed_s` gives, so their gradients sum to its bias's.
    np.testing.assert_allclose(trained["position"].sum(0), trained["embed_s.bias"], rtol=1e-3)
    for name in fixed.keys() - constants:
        np.testing.assert_allclose(trained[name], fixed[name], rtol=1e-4, atol=1e-4)


def gradient_of_squares(**compute):
    graph, state = nnx.split(awake_ddt(**compute))
    loss = lambda s: jnp.sum(nnx.merge(graph, s)(X, T, Y) ** 2)  # noqa: E731
    return jax.jit(jax.grad(loss))(state)


@pytest.fixture(scope="module")
def gradient_without_remat():
    return gradient_of_squares(scan_layers=True, remat="none")


@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.parametrize("scan", [True, False])
def test_remat_changes_no_gradient(gradient_without_remat, scan, remat):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        gradient_of_squares(scan_layers=scan, remat=remat),
        gradient_without_remat,
    )


def test_bfloat16_computes_close_and_returns_float32():
    fine = velocity(awake_ddt(), X, T, Y)
    coarse = velocity(awake_ddt(dtype="bfloat16"), X, T, Y)
    assert coarse.dtype == jnp.float32
    error = jnp.linalg.norm(coarse - fine) / jnp.linalg.norm(fine)
    assert 0 < error < 0.05


SIZES = {
    "S": ((384, 2048), (12, 2), (6, 16)),
    "B": ((768, 2048), (12, 2), (12, 16)),
    "L": ((1024, 2048), (24, 2), (16, 16)),
    "XL": ((1152, 2048), (28, 2), (16, 16)),
}


@pytest.mark.parametrize("size", SIZES)
def test_true_size_has_the_released_number_of_parameters(size):
    hidden, depth, heads = SIZES[size]
    architecture = DDTArchitecture(
        input_size=16,
        in_channels=768,
        hidden_size=hidden,
        depth=depth,
        num_heads=heads,
        num_classes=1000,
    )
    ddt = nnx.eval_shape(lambda: DDT(architecture, Compute(), rngs=nnx.Rngs(0)))
    expected = MANIFESTS[f"ddt_{size}_params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(ddt))) == expected


@pytest.mark.parametrize("wrong", [11, -1])
def test_labels_that_do_not_exist_are_refused(wrong):
    """The table's lookup takes the nearest row: 11 of 10 classes is the null label, unseen."""
    ddt, labels = awake_ddt(), [0, 3, wrong]
    expected = rf"^labels: got {wrong}; expected 0 to 9, or 10 for none$"
    for given in (np.array(labels), jnp.array(labels)):
        with pytest.raises(ValueError, match=expected):
            ddt(X, T, given)
        with pytest.raises(ValueError, match=expected):
            sample_latents(ddt, X, given, steps=2)
    fewer = awake_ddt(num_classes=3)
    with pytest.raises(ValueError, match=r"^labels: got 10; expected 0 to 2, or 3 for none$"):
        sample_latents(ddt, X, Y, steps=2, cfg_scale=2.0, guide=fewer)


def test_labels_under_jit_are_not_known():
    jax.eval_shape(awake_ddt(), X, T, jnp.array([0, 3, 11]))
