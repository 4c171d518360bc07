"""Workers live as long as the run they work for: no shorter and no longer."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.image_files import TRAIN

from rae_dit.data.pipeline import train_batches
from rae_dit.data.sources import synthetic

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
