"""The best step stays on disk besides the newest ones, and best.json names it."""

import json
import time
from pathlib import Path

import pytest
from support.training_states import (
    DATA,
    assert_same,
    biggest_file,
    flip_byte,
    like,
    make_state,
    open_checkpoints,
)

from rae_dit.checkpoint.manager import CheckpointError
from rae_dit.checkpoint.retention import Best


def steps(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def best_of(directory: Path) -> dict:
    return json.loads((directory / "best.json").read_text())


def save(checkpoints, step: int, best: int | None) -> None:
    said = None if best is None else Best(best, "val/loss", best / 10)
    assert checkpoints.save(step, make_state(step), DATA, best=said)


def test_the_best_stays_until_there_is_a_better_one(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path, keep_last=1) as checkpoints:
        for step, best in ((1, None), (2, 2), (3, 2), (4, 2)):
            save(checkpoints, step, best)
        assert checkpoints.latest_step() == 4
        assert steps(tmp_path) == [2, 4]
        assert best_of(tmp_path) == {"step": 2, "metric": "val/loss", "value": 0.2}
    with open_checkpoints(tmp_path, keep_last=1) as checkpoints:  # another process goes on
        save(checkpoints, 5, 2)
        assert checkpoints.has(2)
        save(checkpoints, 6, 6)
        save(checkpoints, 7, 6)
    assert steps(tmp_path) == [6, 7]
    assert best_of(tmp_path)["step"] == 6


def disk_full() -> None:
    raise OSError("disk full")


def test_best_json_comes_after_its_step(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, 1)
        assert checkpoints.latest_step() == 1
        save(checkpoints, 2, 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints._manager, "wait_until_finished", disk_full)
            with pytest.raises(CheckpointError, match="step 2 could not be written"):
                checkpoints.latest_step()
    assert best_of(tmp_path)["step"] == 1


def test_best_json_comes_with_the_next_step_of_training(tmp_path: Path) -> None:
    """Not with the next save, which may be hours later; and not before the step is on disk."""
    with open_checkpoints(tmp_path, save_every=100) as checkpoints:
        state = make_state(1)
        assert checkpoints.save(1, state, DATA, force=True, best=Best(1, "val/loss", 0.5))
        while not (tmp_path / "1").is_dir():
            time.sleep(0.01)
        assert not checkpoints.save(2, state, DATA)
        assert best_of(tmp_path)["step"] == 1
        checkpoints._keep_best.follow(Best(3, "val/loss", 0.4))
        assert not checkpoints.save(4, state, DATA)
        assert best_of(tmp_path)["step"] == 1


def test_going_back_sets_later_steps_aside(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        for step in (2, 4, 6, 8):
            save(checkpoints, step, None)
        restored = checkpoints.restore(like(make_state(0)), newest=5)
        assert restored is not None
        assert_same(restored[0], make_state(4))
        assert steps(tmp_path) == [2, 4]
        assert (tmp_path / "quarantined-8-0").is_dir()
        save(checkpoints, 6, None)  # the numbers can be used again
    assert steps(tmp_path) == [2, 4, 6]


def test_going_back_passes_over_damaged_steps(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        for step in (2, 4, 6):
            save(checkpoints, step, None)
        checkpoints.latest_step()
        flip_byte(biggest_file(tmp_path / "4" / "train"))
        restored = checkpoints.restore(like(make_state(0)), newest=5)
        assert restored is not None
        assert_same(restored[0], make_state(2))
    assert steps(tmp_path) == [2]


def test_nothing_to_go_back_to_renames_nothing(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 6, None)
        assert checkpoints.restore(like(make_state(0)), newest=5) is None
    assert steps(tmp_path) == [6]
