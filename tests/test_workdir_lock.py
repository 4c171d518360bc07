"""Two runs never work in one workdir at a time, and a killed one leaves nothing locked."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from rae_dit.config import ConfigError
from rae_dit.workdir import workdir_lock

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from rae_dit.workdir import workdir_lock
with workdir_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def enter(workdir: Path, wait_seconds: float) -> None:
    with workdir_lock(workdir, wait_seconds=wait_seconds):
        pass


def test_a_second_run_is_refused_in_one_line(holder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--workdir: got .* no other run has locked;") as caught:
        enter(tmp_path, 0.2)
    assert "\n" not in str(caught.value)


def test_the_end_of_a_killed_run_is_waited_for(holder, tmp_path: Path) -> None:
    timer = threading.Timer(0.3, holder.kill)
    timer.start()
    enter(tmp_path, 20.0)
    timer.join()


def test_one_run_after_another_and_others_beside(tmp_path: Path) -> None:
    for _ in range(2):
        with workdir_lock(tmp_path / "new" / "a"), workdir_lock(tmp_path / "new" / "b"):
            pass


def test_files_that_cannot_be_locked_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: filelock.FileLock, timeout: float) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    monkeypatch.setattr(logging.getLogger("rae_dit"), "propagate", True)
    with workdir_lock(tmp_path):
        assert "cannot be locked (FileSystem" in caplog.text
