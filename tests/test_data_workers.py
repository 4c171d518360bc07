"""Workers live as long as the run they work for: no shorter and no longer."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.image_files import TRAIN

from rae_dit.config import ConfigError
from rae_dit.data import workers
from rae_dit.data.pipeline import train_batches
from rae_dit.data.sources import synthetic
from rae_dit.data.workers import BATCHES_PER_WORKER, check_shared_memory, fitting_workers

ROOT = Path(__file__).parent.parent


def test_a_notice_to_stop_does_not_end_them() -> None:
    with train_batches(synthetic(8, 4, 16, seed=0), **(TRAIN | {"num_workers": 2})) as stream:
        first, _ = next(stream), next(stream)  # from both, so both have started
        for worker in multiprocessing.active_children():
            worker.terminate()  # SIGTERM
        for _ in range(20):  # more than were ready before
            assert next(stream)["image"].shape == first["image"].shape
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert not multiprocessing.active_children()


KILLED = """
import multiprocessing, os, signal
from support.image_files import TRAIN
from rae_dit.data.pipeline import train_batches
from rae_dit.data.sources import synthetic
if __name__ == "__main__":
    stream = train_batches(synthetic(8, 4, 16, seed=0), **(TRAIN | {"num_workers": 2}))
    next(stream)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(process: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_the_kill_of_the_run_ends_them(tmp_path: Path) -> None:
    script, output = tmp_path / "killed.py", tmp_path / "workers"
    script.write_text(KILLED)
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with output.open("w") as file:  # not a pipe, which workers would hold open
        subprocess.run([sys.executable, script], env=os.environ | paths, stdout=file, check=False)
    workers = [int(word) for word in output.read_text().split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    try:
        while any(map(is_running, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for worker in filter(is_running, workers):
            os.kill(worker, signal.SIGKILL)


def test_workers_hold_two_batches_each_in_shared_memory() -> None:
    side, rows = 149, 8  # a size that no other test has

    def held() -> int:
        sizes = [path.stat().st_size for path in Path("/dev/shm").glob("psm_*")]
        return sizes.count(rows * side * side * 3)

    settings = TRAIN | {"num_workers": 3, "batch_size": rows}
    with train_batches(synthetic(side, 4, 16, seed=0), **settings) as stream:
        batch = next(stream)
        deadline = time.monotonic() + 60
        while held() < 3 * BATCHES_PER_WORKER + 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # were there more, they would come
        assert held() == 3 * BATCHES_PER_WORKER + 1  # `batch` is the one
        del batch
    assert held() == 0


def test_what_does_not_fit_into_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 images of 256 pixels are 201 MB; Docker gives 64 MB, here there are 2 GB."""
    batch = 1024 * 256 * 256 * 3
    monkeypatch.setattr(workers, "free_shared_memory", lambda: 2 * 10**9)
    with pytest.raises(ConfigError) as caught:
        check_shared_memory(16, batch)
    assert str(caught.value) == (
        "data.num_workers: got 16; expected at most 3, because /dev/shm has 2 GB free and 16 "
        "workers need 6.85 GB: 2 batches of 0.201 GB each, and 2 in use. Docker takes --shm-size=8g"
    )
    check_shared_memory(3, batch)
    check_shared_memory(0, 10**12)
    assert (fitting_workers(16, batch), fitting_workers(2, batch)) == (3, 2)
    monkeypatch.setattr(workers, "free_shared_memory", lambda: 64 * 10**6)
    assert fitting_workers(16, batch) == 0
    with pytest.raises(ConfigError, match="expected at most 0"):
        train_batches(
            synthetic(256, 4, 1024, 0), **(TRAIN | {"batch_size": 1024, "num_workers": 1})
        )


def test_what_is_free_is_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers, "SHARED_MEMORY", str(tmp_path / "none"))
    assert workers.free_shared_memory() is None
    check_shared_memory(16, 10**15)  # not known: not refused
    assert fitting_workers(16, 10**15) == 16
    monkeypatch.setattr(workers, "SHARED_MEMORY", str(tmp_path))
    assert workers.free_shared_memory() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.01)
