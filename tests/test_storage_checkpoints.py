"""Checkpoints in a bucket: as on a disk, and a failing network is no damage."""

import time
from pathlib import Path

import pytest
from support.training_states import DATA, assert_same, like, make_state, open_checkpoints

from rae_dit.checkpoint.manager import CheckpointError, restore_ema
from rae_dit.checkpoint.retention import Best
from rae_dit.checkpoint.steps import DamagedCheckpointError
from rae_dit.storage.errors import StorageError
from rae_dit.storage.places import COMMITTED, place
from rae_dit.storage.reading import paths_below
from rae_dit.workdir import has_checkpoint, newest_step


@pytest.fixture
def workdir(bucket) -> Path:
    found = place(f"{bucket.url}/checkpoints/{time.time_ns()}")
    found.fs._patience = 0.0
    yield found
    found.fs._patience = 300.0


def save(workdir: Path, *steps: int, **changes) -> None:
    with open_checkpoints(workdir / "checkpoints", **changes) as checkpoints:
        for step in steps:
            assert checkpoints.save(step, make_state(step), {**DATA, "step": step})


def biggest_object(directory: Path) -> Path:
    return max((directory / n for n in paths_below(directory)), key=lambda p: p.stat().st_size)


def test_saved_kept_and_restored_bit_for_bit(workdir: Path) -> None:
    with open_checkpoints(workdir / "checkpoints", keep_last=1) as checkpoints:
        best, uploaded = Best(1, "val/loss", 0.5), []
        for step in (1, 2, 3):
            before = lambda: uploaded.append(1)  # noqa: E731
            checkpoints.save(step, make_state(step), DATA, best=best, before=before)
            assert len(uploaded) == step
        assert not checkpoints.save(3, make_state(3), DATA, force=True, before=pytest.fail)
    names = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert names == ["1", "3", "best.json"]
    with open_checkpoints(workdir / "checkpoints") as checkpoints:
        restored, _ = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
    assert_same(restored, make_state(3))
    ema = restore_ema(str(workdir), like(make_state(0)).ema)
    assert_same(ema, make_state(3).ema)
    assert newest_step(workdir) == 3


def test_a_step_without_its_mark_is_not_there_and_is_saved_again(workdir: Path) -> None:
    assert not has_checkpoint(workdir)
    save(workdir, 1, 2)
    (workdir / "checkpoints" / "2" / COMMITTED).unlink()  # as if killed before it was written
    assert newest_step(workdir) == 1
    with open_checkpoints(workdir / "checkpoints") as checkpoints:
        restored, _ = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
        assert_same(restored, make_state(1))
        assert checkpoints.save(2, make_state(2), DATA)
    assert newest_step(workdir) == 2
    with open_checkpoints(workdir / "checkpoints") as checkpoints:
        assert_same(checkpoints.restore_step(2, like(make_state(0)))[0], make_state(2))


def test_a_damaged_object_is_found_and_its_step_set_aside(workdir: Path) -> None:
    save(workdir, 1, 2)
    harmed = biggest_object(workdir / "checkpoints" / "2" / "train")
    content = bytearray(harmed.read_bytes())
    content[len(content) // 2] ^= 1
    harmed.write_bytes(bytes(content))
    with open_checkpoints(workdir / "checkpoints") as checkpoints:
        restored, _ = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
        assert_same(restored, make_state(1))
    names = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert names == ["1", "quarantined-2-0"]
    kept = paths_below(workdir / "checkpoints" / "quarantined-2-0")
    assert COMMITTED not in kept
    assert f"train/{harmed.relative_to(workdir / 'checkpoints' / '2' / 'train')}" in kept
    harmed.write_bytes(b"")  # a step of that number that is not whole
    lost = workdir / "checkpoints" / "1" / "ema" / "manifest.ocdbt"
    lost.unlink()
    checkpoints = open_checkpoints(workdir / "checkpoints")
    with checkpoints, pytest.raises(DamagedCheckpointError):
        checkpoints.restore_step(1, like(make_state(0)))


def test_what_cannot_be_reached_is_not_set_aside(bucket, workdir: Path) -> None:
    save(workdir, 1, 2)
    checkpoints = open_checkpoints(workdir / "checkpoints")
    # The last two are read by tensorstore, which repeats a 503 for many minutes.
    for where, status in (("integrity", 503), ("data", 401), ("train", 403), ("ema", 401)):

        def answer(method: str, path: str, where: str = where, status: int = status) -> int | None:
            is_there = f"2/{where}" in path.replace("%2F", "/")
            return status if is_there and method == "GET" else None

        with bucket.failing(answer), pytest.raises(StorageError, match=r"gs://\S+/2") as caught:
            checkpoints.restore(like(make_state(0)))
        assert not isinstance(caught.value, OSError)
        assert "\n" not in str(caught.value)
    restored, _ = checkpoints.restore(like(make_state(0))) or pytest.fail("none")
    assert_same(restored, make_state(2))
    checkpoints.close()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_a_failed_write_says_why_and_the_last_good_step_stays(bucket, workdir: Path) -> None:
    checkpoints = open_checkpoints(workdir / "checkpoints")
    assert checkpoints.save(1, make_state(1), DATA)
    assert checkpoints.latest_step() == 1

    def answer(method: str, path: str) -> int | None:
        return 403 if "2" in path and method == "POST" and "upload" in path else None

    def save_and_wait() -> None:
        checkpoints.save(2, make_state(2), DATA)
        checkpoints.latest_step()

    words = r"last good step is 1; the same command continues"
    with bucket.failing(answer), pytest.raises(CheckpointError, match=words):
        save_and_wait()
    assert checkpoints.latest_step() == 1
    checkpoints.close()
