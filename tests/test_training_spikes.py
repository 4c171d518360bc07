"""A loss that jumps: back to a checkpoint, on with other data, and the same if killed."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.run_processes import config_of
from support.small_run import assert_trees_equal, batches

from rae_dit.checkpoint.manager import restore_state
from rae_dit.data.transforms import to_float
from rae_dit.modes.train import train
from rae_dit.setup.run import make_program
from rae_dit.storage.errors import StorageError
from rae_dit.training import loop
from rae_dit.training.history import DivergedError
from rae_dit.training.metrics import MetricsWriter
from rae_dit.training.sharding import make_mesh

SETTINGS = {
    "optim.max_steps": 9,
    "optim.spike_factor": 3.0,
    "optim.spike_window": 3,
    "checkpoint.save_every": 3,
    "metrics.validate_every": 1000,
    "metrics.log_every": 1,
}
CONFIG = config_of(SETTINGS)


class Killed(BaseException):
    """Stands in for a signal."""


class Data:
    """The stream of a run as the steps see it: some batches are far too bright."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = [batch["image"] for batch in batches(CONFIG, 30)]
        self.seen: list[int] = []  # numbers of the batches, from 1
        self.bright: set[int] = set()
        self.killed_after = 10**6  # batches
        self.place = loop.shard_batch
        monkeypatch.setattr(loop, "shard_batch", self.shard_batch)

    def shard_batch(self, batch, mesh):
        matches = [np.array_equal(to_float(batch["image"]), image) for image in self.known]
        self.seen.append(1 + matches.index(True))
        if len(self.seen) > self.killed_after:
            raise Killed
        if self.seen[-1] in self.bright:
            batch = batch | {"image": to_float(batch["image"]) + np.float32(100)}
        return self.place(batch, mesh)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Data:
    return Data(monkeypatch)


def steps(workdir: Path) -> list[int]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def last_state(workdir: Path):
    return restore_state(workdir, make_program(CONFIG, make_mesh(1)).abstract)


def test_back_to_before_on_with_other_data_and_the_same_if_killed(
    data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data.bright = {5, 11}
    config = config_of(SETTINGS | {"optim.spike_window": 4})
    with caplog.at_level("WARNING", "rae_dit"):
        train(config, tmp_path / "straight")
    # Steps 1..5, back to 3, steps 4..9 but for the second spike at step 9: back to 6, steps 7..9.
    assert data.seen == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert [
        r.getMessage().split("is a ")[1] for r in caplog.records if "spike" in r.getMessage()
    ] == [
        "spike: back to step 3, past the data since",
        "spike: back to step 6, past the data since",
    ]
    assert steps(tmp_path / "straight") == list(range(1, 10))
    state, saved = last_state(tmp_path / "straight")
    assert int(state.step) == 9
    history = saved["history"]
    assert (history["rollbacks"], history["skipped_batches"]) == (2, 5)
    lines = (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()
    assert history["losses"] == [json.loads(line)["train/loss"] for line in lines[-4:]]

    # Killed after the first rollback, before anything was saved; and again after a save.
    for killed_after in (6, 9):
        data.seen, data.killed_after = [], killed_after
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    data.seen, data.killed_after = [], 10**6
    train(config, tmp_path / "killed")
    ours, same = last_state(tmp_path / "killed")
    assert_trees_equal(ours, state)
    assert same == saved
    assert steps(tmp_path / "killed") == list(range(1, 10))


def test_too_many_spikes_end_the_run(data: Data, tmp_path: Path) -> None:
    data.bright = set(range(5, 31))
    settings = SETTINGS | {"optim.max_rollbacks": 2}
    with pytest.raises(DivergedError, match=r"step 4 .* went back 2 times .* up to 3 "):
        train(config_of(settings), tmp_path)
    assert data.seen == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3"]


def test_without_a_checkpoint_from_before_the_run_ends(data: Data, tmp_path: Path) -> None:
    data.bright = {5}
    settings = SETTINGS | {"checkpoint.save_every": 1000}
    with pytest.raises(DivergedError, match=r"step 5 .* no checkpoint up to step 4 "):
        train(config_of(settings), tmp_path)


def test_what_was_saved_after_the_last_sound_loss_is_not_trusted(
    data: Data, tmp_path: Path
) -> None:
    data.bright = {6}
    changes = {"metrics.log_every": 2, "checkpoint.save_every": 1, "optim.spike_window": 2}
    train(config_of(SETTINGS | changes | {"optim.max_steps": 6}), tmp_path)
    assert data.seen == [1, 2, 3, 4, 5, 6, 7, 8]  # from step 4: nobody saw the loss of step 5
    assert (tmp_path / "checkpoints" / "quarantined-5-0").is_dir()


def test_nothing_is_set_aside_before_the_lock_is_made_sure_of(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.bright = {6}

    def upload(self: MetricsWriter) -> None:
        if data.seen and data.seen[-1] == 6:
            raise StorageError("got taken over")

    monkeypatch.setattr(MetricsWriter, "upload", upload)
    changes = {"metrics.log_every": 2, "checkpoint.save_every": 1, "optim.spike_window": 2}
    with pytest.raises(StorageError, match="taken over"):
        train(config_of(SETTINGS | changes | {"optim.max_steps": 6}), tmp_path)
    assert "5" in {path.name for path in (tmp_path / "checkpoints").iterdir()}


def test_nobody_looks_unless_asked(data: Data, tmp_path: Path) -> None:
    data.bright = {5}
    settings = {name: value for name, value in SETTINGS.items() if "spike" not in name}
    train(config_of(settings | {"optim.max_steps": 6}), tmp_path)
    assert data.seen == [1, 2, 3, 4, 5, 6]
