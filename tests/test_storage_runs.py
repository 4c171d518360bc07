"""Whole runs in a bucket: stopped anywhere, the same command ends with the bits of a local run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.bucket import environment
from support.compile_flags import CHEAP
from support.run_processes import ROOT, free_address, statuses, without_tensorflow
from support.run_processes import SETTINGS as SUBPROCESS
from support.sampling_run import sampling_config
from support.small_run import assert_trees_equal, small_config
from support.whole_run import SETTINGS, final_state, metric_lines

from rae_dit.checkpoint.manager import CheckpointError
from rae_dit.config import ConfigError
from rae_dit.modes.sample import sample
from rae_dit.modes.train import train
from rae_dit.storage.errors import StorageError
from rae_dit.storage.lease import Lease
from rae_dit.storage.places import place
from rae_dit.storage.reading import local_copy, paths_below
from rae_dit.training.metrics import MetricsWriter
from rae_dit.workdir import newest_step


@pytest.fixture
def workdir(bucket) -> Path:
    found = place(f"{bucket.url}/runs/{time.time_ns()}")
    found.fs._patience = 0.0
    yield found
    found.fs._patience = 300.0


def test_a_run_that_lost_its_bucket_in_a_save_ends_as_a_local_one(
    bucket, workdir: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    config = small_config(**SETTINGS)
    seen = []

    def answer(method: str, path: str) -> int | None:
        """Fails all that comes after the first objects of step 3 are there."""
        seen.append(method == "POST" and "3/train" in path.replace("%2F", "/"))
        return 403 if sum(seen) > 2 else None

    with bucket.failing(answer), pytest.raises((CheckpointError, StorageError)) as caught:
        train(config, workdir)
    assert "\n" not in str(caught.value)
    assert "3" in {path.name for path in (workdir / "checkpoints").iterdir()}  # a part of it
    (workdir / ".lock").unlink(missing_ok=True)  # or it is waited for: this process lives
    train(config, workdir)
    assert_trees_equal(final_state(workdir, config)[0], final_state(straight, config)[0])
    assert metric_lines(workdir) == metric_lines(straight)
    assert not [name for name in paths_below(workdir) if "quarantined" in name]
    names = {name.partition("/")[0] for name in paths_below(workdir)}
    assert {"checkpoints", "config.json", "goodput.json", "metrics.jsonl"} <= names
    assert ".lock" not in names


def test_a_second_run_is_refused_in_one_line(workdir: Path, monkeypatch) -> None:
    other = Lease(workdir, renew=0.3)
    other._own |= {"host": "other", "process": "boot pid:[1] 1 1"}
    with other, pytest.raises(ConfigError, match=r"^--workdir: gs://\S+: got held by .* on other"):
        train(small_config(**SETTINGS), workdir)


@pytest.mark.parametrize("ends_otherwise", [False, True])
def test_a_run_whose_lease_was_taken_between_saves_writes_nothing_more(
    workdir: Path, monkeypatch, ends_otherwise: bool
) -> None:
    monkeypatch.setattr("rae_dit.storage.gcs.SPEAK_AFTER", 1e9)
    write = MetricsWriter.write
    files = [workdir / name for name in ("metrics.jsonl", "goodput.json")]

    def take(self: MetricsWriter, step: int, *arguments) -> None:
        write(self, step, *arguments)
        if step == 3:
            (workdir / ".lock").write_bytes(b'{"run": "x", "host": "other", "pid": 3}')
            for file in files:
                file.write_bytes(b"the other run's")
            if ends_otherwise:
                raise KeyError("for another reason")

    monkeypatch.setattr(MetricsWriter, "write", take)
    words = "another reason" if ends_otherwise else r"got taken over \(by process 3 on other"
    with pytest.raises(KeyError if ends_otherwise else StorageError, match=words):
        train(small_config(**SETTINGS), workdir)
    assert newest_step(workdir) == 2
    for file in files:
        assert file.read_bytes() == b"the other run's"
    assert b"other" in (workdir / ".lock").read_bytes()


def test_sampling_that_was_stopped_continues(bucket, workdir: Path, tmp_path: Path) -> None:
    def make(output: object) -> None:
        sample(sampling_config(**{"sample.output_dir": str(output)}), workdir / "no_run")

    make(tmp_path / "samples")
    output = workdir / "samples"
    pictures = []

    def answer(method: str, path: str) -> int | None:
        pictures.append(method == "POST" and "upload" in path)
        return 503 if sum(pictures) > 12 else None

    with bucket.failing(answer), pytest.raises(StorageError, match="unavailable since"):
        make(output)
    there = {path.name: path.stat().version for path in output.glob("*.png")}
    assert 0 < len(there) < 20
    make(output)
    found = {path.name: path for path in output.iterdir()}
    assert set(found) == {path.name for path in (tmp_path / "samples").iterdir()}
    for name, version in there.items():
        assert found[name].stat().version == version  # not made again
    with np.load(local_copy(output / "samples.npz")) as arrays:
        ours = dict(arrays)
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours[name], array)
    with pytest.raises(ConfigError, match="holds images of other settings"):
        sample(
            sampling_config(**{"sample.output_dir": str(output), "sample.seed": 5}),
            workdir / "no_run",
        )


def start(
    bucket, folder: Path, workdir: Path, number: int, *flags: str, **changes
) -> subprocess.Popen:
    """Starts a process of a training run; its output goes to FOLDER/NUMBER.log."""
    variables = environment(bucket.address) | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {CHEAP}",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": without_tensorflow(folder),
        "FSSPEC_GCS_PATIENCE": "20",
    }
    command = [sys.executable, "-m", "rae_dit.main", f"--config={ROOT}/configs/dit_dummy.py"]
    command += [f"--workdir={workdir}", *flags]
    command += [f"--config.{name}={value}" for name, value in (SUBPROCESS | changes).items()]
    with (folder / f"{number}.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | variables, stdout=log, stderr=log
        )


def pair(bucket, folder: Path, workdir: Path, **changes) -> list[subprocess.Popen]:
    """Starts a run of two processes."""
    address = free_address()
    flags = [f"--coordinator_address={address}", "--num_processes=2"]
    return [
        start(bucket, folder, workdir, i, *flags, f"--process_id={i}", **changes) for i in (0, 1)
    ]


@pytest.mark.slow
def test_sigkill_during_a_save_and_the_same_command_continues(
    bucket, workdir: Path, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    assert statuses([start(bucket, tmp_path, local, 0)], 300) == [0]
    victims: list[subprocess.Popen] = []
    hits = []

    def answer(method: str, path: str) -> int | None:
        if method == "POST" and "4/train" in path.replace("%2F", "/"):
            hits.append(path)
            if len(hits) == 3:
                victims[0].send_signal(signal.SIGKILL)
                time.sleep(0.5)
        return None

    with bucket.failing(answer):
        victims.append(start(bucket, tmp_path, workdir, 1))
        assert statuses(victims, 300) == [-signal.SIGKILL]
    assert (workdir / ".lock").exists()
    assert not (workdir / "checkpoints/4/commit_success.txt").exists()
    assert (workdir / "checkpoints/4").is_dir()
    assert statuses([start(bucket, tmp_path, workdir, 2)], 300) == [0], (
        tmp_path / "2.log"
    ).read_text()
    assert "continuing from step 2" in (tmp_path / "2.log").read_text()
    config = small_config(**SUBPROCESS)
    assert_trees_equal(final_state(workdir, config)[0], final_state(local, config)[0])
    assert metric_lines(workdir) == metric_lines(local)


@pytest.mark.slow
def test_two_processes_one_bucket(bucket, workdir: Path, tmp_path: Path) -> None:
    for steps in (2, 4):  # the second continues the first
        changes = {"optim.max_steps": steps}
        ended = statuses(pair(bucket, tmp_path, workdir, **changes), 300)
        assert ended == [0, 0], (tmp_path / "0.log").read_text()[-3000:]
    local = tmp_path / "local"
    assert statuses(pair(bucket, tmp_path, local, **changes), 300) == [0, 0]
    config = small_config(**SUBPROCESS)
    assert_trees_equal(final_state(workdir, config)[0], final_state(local, config)[0])


@pytest.mark.slow
def test_a_process_that_loses_its_credentials_ends_all_soon(
    bucket, workdir: Path, tmp_path: Path
) -> None:
    probes = []

    def answer(method: str, path: str) -> int | None:
        """Process 0 writes its probe once, at the start; all later ones are of process 1."""
        probes.append(method == "DELETE" and "rae_dit-probe" in path)
        return 401 if probes[-1] and sum(probes) > 2 else None

    with bucket.failing(answer):
        began = time.monotonic()
        found = statuses(pair(bucket, tmp_path, workdir), 240)
    assert sum(probes) > 2
    assert not {None, 0} & {*found}, found
    logs = "".join((tmp_path / f"{i}.log").read_text() for i in (0, 1))
    assert "no valid credentials" in logs
    assert time.monotonic() - began < 240
    assert newest_step(workdir) == 2
