"""Muon against the reference's optimizer and against singular values."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support.small_run import host, small_config, take_steps

from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.training import muon
from rae_dit.training.muon_account import update_rms
from rae_dit.training.sharding import make_mesh, mesh_context

GOLDEN = Path(__file__).parent / "golden" / "raev2"
SETTINGS = json.loads((GOLDEN / "muon.json").read_text())
MATRICES = ("wide", "tall", "square", "table", "tokens")


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "muon.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 0.02), ("bfloat16", 0.1)])
def test_three_steps_are_the_references(reference, dtype, bound):
    rates = jnp.array(SETTINGS["lrs_muon"])
    names = [name.removeprefix("p0/") for name in reference if name.startswith("p0/")]
    optimizer = muon.muon_and_adamw(
        lambda step: rates[step],
        momentum=SETTINGS["momentum"],
        beta1=SETTINGS["betas"][0],
        beta2=SETTINGS["betas"][1],
        epsilon=SETTINGS["eps"],
        weight_decay=SETTINGS["weight_decay"],
        clip_norm=SETTINGS["clip"],
        decay_mask=dict.fromkeys(names, True),
        matrices={name: int(name in MATRICES) for name in names},
        dtype=dtype,
    )
    params = {name: jnp.asarray(reference[f"p0/{name}"]) for name in names}
    state = optimizer.init(params)
    for k in (1, 2, 3):
        gradients = {name: jnp.asarray(reference[f"g{k}/{name}"]) for name in names}
        updates, state = jax.jit(optimizer.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name in names:
            rounded = reference[f"p{k}/{name}"]
            if name in MATRICES:
                if dtype == "float32":
                    exact = reference[f"p{k}_exact/{name}"]
                    np.testing.assert_allclose(params[name], exact, atol=1e-5)
                change = np.abs(rounded - reference[f"p0/{name}"]).max()
                assert np.abs(params[name] - rounded).max() < bound * change
            else:
                np.testing.assert_allclose(params[name], rounded, atol=1e-6)


def orthogonal(u: jax.Array | np.ndarray) -> jax.Array:
    return muon.orthogonalize(muon.normalize(jnp.asarray(u), jnp.float32))


def random_matrices(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 40)])
def test_singular_values_become_about_one(shape):
    u = random_matrices(*shape)
    left, values, right = np.linalg.svd(u, full_matrices=False)
    x = np.asarray(orthogonal(u))
    new = np.einsum("kji,kjl,kml->kim", left, x, right)
    diagonal = np.diagonal(new, axis1=1, axis2=2)
    kept = values > 0.002 * np.linalg.norm(u, axis=(1, 2))[:, None]
    assert kept.mean() > 0.9
    assert (diagonal[kept] > 0.845).all()
    assert (diagonal[kept] < 1.125).all()
    np.testing.assert_allclose(new - diagonal[:, :, None] * np.eye(new.shape[1]), 0, atol=1e-4)


def test_a_fused_kernel_is_its_parts_apart():
    parts = random_matrices(3, 5, 8, 12)
    fused = np.concatenate(list(parts), axis=-1)
    counts = {("fused",): 3, ("wide",): 1}
    together = muon.orthogonalize_leaves({("fused",): fused}, counts, jnp.float32)[("fused",)]
    for part, mine in zip(parts, np.split(np.asarray(together), 3, axis=-1), strict=True):
        alone = muon.orthogonalize_leaves({("wide",): part}, counts, jnp.float32)[("wide",)]
        np.testing.assert_allclose(mine, alone, rtol=1e-5, atol=1e-6)


def test_a_zero_gradient_changes_nothing():
    assert not np.asarray(orthogonal(jnp.zeros((2, 4, 6)))).any()


@pytest.mark.parametrize(("matrices", "share"), [(11, "2,"), (3, "")])
def test_eight_devices_make_the_same_update_each_a_part_of_it(matrices, share):
    u = random_matrices(matrices, 16, 24)
    alone = orthogonal(u)
    mesh = make_mesh(2)
    split = jax.device_put(u, NamedSharding(mesh, PartitionSpec(None, None, "fsdp")))
    with mesh_context(mesh):
        program = jax.jit(orthogonal).lower(split).compile()
    np.testing.assert_allclose(program(split), alone, atol=1e-5)
    assert f"f32[{share}16,16]" in program.as_text(), "each device should make its share"
    assert f"f32[{matrices},16,16]" not in program.as_text()
    assert not any(f"f32[{count},16,16]" in program.as_text() for count in (8, 16))


def test_an_update_of_full_rank_has_a_fifth_of_the_rate_in_every_role(trained):
    _, _, metrics = trained
    roles = {name.removeprefix("update_rms/"): name for name in metrics[0] if "update_rms/" in name}
    assert {"attention.qkv", "mlp.w12", "modulation.linear", "label_table"} < set(roles)
    full = metrics[0][roles["final_linear"]]  # the only one with a gradient at the start
    assert 0.15 < full / metrics[0]["lr"] < 0.225
    assert metrics[0][roles["attention.qkv"]] == 0


def test_the_rms_of_a_role_is_over_all_its_blocks():
    updates = {
        "backbone": {"blocks": {"mlp": {"kernel": np.full((3, 2, 2), 2.0), "bias": np.ones(3)}}},
        "head": {"blocks": {"mlp": {"kernel": np.full((1, 2, 4), 4.0), "bias": np.ones(1)}}},
        "table": np.full((2, 2), 5.0),
    }
    matrices = jax.tree.map(lambda leaf: int(leaf.ndim > 1), updates)
    found = update_rms(jax.tree.map(jnp.asarray, updates), matrices=matrices)
    expected = {"update_rms/mlp": ((12 * 4 + 8 * 16) / 20) ** 0.5, "update_rms/table": 5.0}
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def trained():
    changes = {"optim.name": "muon", "optim.momentum": 0.95}
    return take_steps(small_config(**changes), 2)


def test_a_run_on_eight_devices_in_two_copies_of_four_shards_is_the_run_on_one(trained):
    _, alone, metrics = trained
    changes = {"optim.name": "muon", "optim.momentum": 0.95, "sharding.fsdp": 4}
    _, state, sharded = take_steps(small_config(**changes), 2, devices=8)
    assert sharded[-1]["loss"] == pytest.approx(metrics[-1]["loss"], rel=1e-5)
    for mine, theirs in zip(
        *map(jax.tree.leaves, (host(state.params), host(alone.params))), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def test_its_state_is_saved_and_restored(trained, tmp_path):
    program, state, _ = trained
    settings = {"save_every": 1, "keep_last": 1, "keep_every": None}
    with Checkpoints(tmp_path, **settings) as checkpoints:
        checkpoints.save(2, state, {})
    with Checkpoints(tmp_path, **settings) as checkpoints:
        restored, _ = checkpoints.restore(program.abstract)
    jax.tree.map(np.testing.assert_array_equal, host(restored.opt_state), host(state.opt_state))
