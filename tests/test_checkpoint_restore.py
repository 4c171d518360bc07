"""Reading the EMA alone, or another run's state, from any path that means a checkpoint."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support.training_states import (
    DATA,
    assert_same,
    biggest_file,
    flip_byte,
    fully_sharded,
    like,
    make_state,
    open_checkpoints,
    tree_of,
)

from rae_dit.checkpoint import integrity
from rae_dit.checkpoint.manager import (
    CheckpointError,
    DamagedCheckpointError,
    restore_ema,
    restore_state,
)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (9, 10):
            checkpoints.save(step, make_state(step), DATA | {"step": step})
    return tmp_path


def test_ema_alone_from_every_kind_of_path(workdir: Path) -> None:
    like_params = like(make_state(0)).ema
    for step in ("9", "10"):
        shutil.rmtree(workdir / "checkpoints" / step / "train")
    for path in (workdir, workdir / "checkpoints", workdir / "checkpoints" / "10"):
        assert_same(restore_ema(path, like_params), make_state(10).ema)
    assert_same(restore_ema(str(workdir / "checkpoints" / "9"), like_params), make_state(9).ema)


def test_ema_goes_where_it_is_asked_to(workdir: Path) -> None:
    place = fully_sharded((2, 4), ("replica", "fsdp"))
    ema = restore_ema(workdir, like(make_state(0), place).ema)
    assert_same(ema, make_state(10).ema)
    kernel = ema["block"]["kernel"]
    assert kernel.sharding.is_equivalent_to(place(kernel), kernel.ndim)


def test_state_from_another_run(workdir: Path) -> None:
    before = tree_of(workdir)
    state, data = restore_state(workdir / "checkpoints" / "9", like(make_state(0)))
    assert_same(state, make_state(9))
    assert data == DATA | {"step": 9}
    assert tree_of(workdir) == before


def test_damage_is_an_error_that_names_the_other_steps(workdir: Path) -> None:
    before = tree_of(workdir)
    flip_byte(biggest_file(workdir / "checkpoints" / "10" / "ema"))
    with pytest.raises(DamagedCheckpointError, match=r"10 is damaged.*other steps there: \[9\]"):
        restore_ema(workdir, like(make_state(0)).ema)
    assert tree_of(workdir) == before


def test_unfinished_and_set_aside_steps_are_not_seen(workdir: Path) -> None:
    for name in ("11.orbax-checkpoint-tmp", "quarantined-12-0"):
        shutil.copytree(workdir / "checkpoints" / "9", workdir / "checkpoints" / name)
    assert_same(restore_ema(workdir, like(make_state(0)).ema), make_state(10).ema)


def test_clear_errors(workdir: Path) -> None:
    params = like(make_state(0)).ema
    with pytest.raises(CheckpointError, match="no such directory"):
        restore_ema(workdir / "nowhere", params)
    (workdir / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no finished checkpoint in .*; it is empty\. "):
        restore_ema(workdir / "empty", params)
    (workdir / "empty" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"no finished checkpoint.*notes\.txt"):
        restore_ema(workdir / "empty", params)
    with pytest.raises(CheckpointError, match=r"half: stored as float32.*wanted as bfloat16"):
        restore_ema(workdir, params | {"half": jax.ShapeDtypeStruct((24,), jnp.bfloat16)})
    newest = workdir / "checkpoints" / "10"
    shutil.rmtree(newest / "ema")
    with pytest.raises(DamagedCheckpointError, match=r"ema: .*does not exist"):
        restore_ema(workdir, params)
    record = json.loads((newest / "integrity" / "metadata").read_text())
    record["trees"].pop("ema")
    record.pop("seal")
    record["seal"] = integrity.json_checksum(record)
    (newest / "integrity" / "metadata").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"no 'ema' item, only \['train'\]"):
        restore_ema(workdir, params)
