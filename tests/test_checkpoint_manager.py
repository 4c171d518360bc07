"""Saving, retention and resume of whole states."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support.training_states import (
    DATA,
    assert_same,
    fully_sharded,
    like,
    make_state,
    open_checkpoints,
    save_steps,
    tree_of,
)

from rae_dit.checkpoint.manager import CheckpointError


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    state = make_state(3)
    data = {"step": 3, "nested": {"list": [1, 2.5, None]}, "tuple": (1, 2), 10: "a", 2: "b"}
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(3, state, data)
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 3
        restored = checkpoints.restore(like(state))
    assert restored is not None
    assert_same(restored[0], state)
    assert restored[1] == {
        "step": 3,
        "nested": {"list": [1, 2.5, None]},
        "tuple": [1, 2],
        "10": "a",
        "2": "b",
    }
    drawn = jax.random.normal(restored[0].key, (2,)), jax.random.normal(state.key, (2,))
    assert_same(*drawn)


def test_restores_onto_other_shardings(tmp_path: Path) -> None:
    alone = make_state(1)
    place = fully_sharded((8,), ("fsdp",))
    state = jax.tree.map(lambda leaf: jax.device_put(leaf, place(leaf)), alone)
    assert len(state.params["block"]["kernel"].addressable_shards) == 8
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(1, state, DATA)
    targets = [like(alone), like(state), like(state, fully_sharded((2, 4), ("replica", "fsdp")))]
    unplaced = like(state, lambda leaf: None)
    with open_checkpoints(tmp_path) as checkpoints:
        for target in [*targets, unplaced]:
            restored, _ = checkpoints.restore(target) or pytest.fail("nothing restored")
            assert_same(restored, alone)
            for leaf, struct in zip(
                jax.tree.leaves(restored), jax.tree.leaves(target), strict=True
            ):
                if struct.sharding is None:
                    assert leaf.devices() == {jax.devices()[0]}
                else:
                    assert leaf.sharding.is_equivalent_to(struct.sharding, leaf.ndim)


def test_state_may_be_donated_right_after_save(tmp_path: Path) -> None:
    state = make_state(1, width=20_000)
    expected = jax.tree.map(jnp.copy, state)
    overwrite = jax.jit(
        lambda s: jax.tree.map(lambda x: x if x.dtype == s.key.dtype else x + x, s),
        donate_argnums=0,
    )
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(1, state, DATA)
        for _ in range(3):
            state = overwrite(state)
        jax.block_until_ready(state)
        restored, _ = checkpoints.restore(like(expected)) or pytest.fail("nothing restored")
    assert_same(restored, expected)


def test_empty_directory_and_unfinished_writes_give_none(tmp_path: Path) -> None:
    (tmp_path / "7.orbax-checkpoint-tmp").mkdir()
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(like(make_state(0))) is None
        assert checkpoints.latest_step() is None
        with pytest.raises(CheckpointError, match=r"no step 7 .* there are \[\]"):
            checkpoints.restore_step(7, like(make_state(0)))
        assert checkpoints.save(7, make_state(7), DATA)
    assert (tmp_path / "7").is_dir()


def test_saves_when_due_and_says_so(tmp_path: Path) -> None:
    state = make_state(0)
    with open_checkpoints(tmp_path, save_every=4) as checkpoints:
        answers = [checkpoints.save(step, state, DATA) for step in range(1, 10)]
        assert answers == [False, False, False, True, False, False, False, True, False]
        assert checkpoints.save(10, state, DATA, force=True)
        assert not checkpoints.save(10, state, DATA, force=True)  # already there, by us
    with open_checkpoints(tmp_path, save_every=4) as checkpoints:
        assert checkpoints.latest_step() == 10
        checkpoints.restore_step(8, like(state))
        for step in (9, 10):  # a later step of a former run would shadow these
            with pytest.raises(CheckpointError, match="already holds step 10"):
                checkpoints.save(step, state, DATA, force=True)
        checkpoints.restore(like(state))
        assert not checkpoints.save(10, state, DATA, force=True)


def test_keeps_the_last_and_every_nth(tmp_path: Path) -> None:
    state = make_state(0)
    with open_checkpoints(tmp_path, keep_last=2, keep_every=4) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, state, DATA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6", "7"]


@pytest.mark.parametrize("name", ["save_every", "keep_last", "keep_every"])
def test_numbers_below_one_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        open_checkpoints(tmp_path, **{name: 0})


def test_another_model_is_an_error_and_renames_nothing(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    before = tree_of(tmp_path)
    wider = make_state(0, width=128)
    renamed = make_state(0)
    renamed.params["new"] = renamed.params.pop("half")
    cast = make_state(0)
    cast.params["block"]["scale"] = cast.params["block"]["scale"].astype(jnp.bfloat16)
    structs = {
        r"params/block/kernel: stored as float32\[64, 16\], wanted as float32\[128, 16\]": wider,
        r"params/new: wanted, but not stored; params/half: stored, but not wanted": renamed,
        r"params/block/scale: stored as float32\[8, 3\], wanted as bfloat16\[8, 3\]": cast,
    }
    with open_checkpoints(tmp_path) as checkpoints:
        for message, state in structs.items():
            with pytest.raises(CheckpointError, match=message) as caught:
                checkpoints.restore(like(state))
            assert "config.json" in str(caught.value)
        uneven = like(make_state(0))
        mesh = fully_sharded((8,), ("fsdp",))(jnp.zeros(8)).mesh
        uneven.params["block"]["scale"] = jax.ShapeDtypeStruct(
            (8, 3), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "fsdp"))
        )
        with pytest.raises(CheckpointError, match="params/block/scale cannot be laid out"):
            checkpoints.restore(uneven)
    assert tree_of(tmp_path) == before


def test_empty_nodes_may_change_between_save_and_restore(tmp_path: Path) -> None:
    state = make_state(1)
    save_steps(tmp_path, 1)
    other = dataclasses.replace(state, opt_state=(state.opt_state[0], (), [None]))
    with open_checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(like(other)) or pytest.fail("none")
    assert_same(restored, other)
