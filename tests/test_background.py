"""A command does not wait for a compile that nobody will use."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rae_dit.background import in_background

ENDLESS = """
import threading, time
from rae_dit.background import in_background, leave_background
in_background(lambda: time.sleep(600), "compile")
print("kept", end="")
leave_background(SystemExit({code!r}))
"""
BROKEN_RUN = """
import time
import rae_dit.modes.train as train
from rae_dit.checkpoint.manager import CheckpointError

def broken(*_):
    raise CheckpointError("the checkpoint is broken")

train.compile_step = lambda *_: time.sleep(600)
train.restore_or_create = broken
from rae_dit import main
main.run()
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize(("code", "status"), [(None, 0), (2, 2), ("no such file", 1)])
def test_the_status_is_the_end_s_own(code: str | int | None, status: int) -> None:
    ended = run(ENDLESS.format(code=code))
    assert (ended.returncode, ended.stdout) == (status, "kept")
    assert ended.stderr == ("no such file\n" if status == 1 else "")


def test_without_such_work_the_end_goes_on() -> None:
    code = (
        "from rae_dit.background import leave_background\nleave_background(SystemExit(3))\nexit(4)"
    )
    assert run(code).returncode == 4


def test_an_error_of_the_work_is_raised_where_its_end_is_asked_for() -> None:
    def fail() -> None:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        in_background(fail, "compile").result(10)


def test_an_error_before_the_first_step_waits_for_no_compile(tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = run(BROKEN_RUN, "--config=configs/dit_dummy.py", f"--workdir={tmp_path}")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "rae_dit: the checkpoint is broken"
    assert time.monotonic() - begun < 200
