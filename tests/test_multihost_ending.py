"""What ends one of several processes ends all of them: an error, SIGTERM, SIGKILL, a hang."""

import signal
import time
from pathlib import Path

from support.run_processes import start_script, statuses

SCRIPT = r"""
import functools, os, pathlib, signal, sys, time
import numpy as np
from rae_dit.config import ConfigError
from rae_dit.failures import report
from rae_dit.multihost import (
    EndTogether, Preemption, ProcessInfo, StopAtOnce, allgather_bytes, closing, ending, initialize,
    preemption, processes,
)
address, count, me, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
processes.HEARTBEAT_SECONDS = 10
preemption.HANG_SECONDS = 2.0
ending.GRACE_SECONDS, ending.FAREWELL_SECONDS = 1.0, 5.0
initialize(ProcessInfo(address, count, me))
own, folder = (ConfigError,), pathlib.Path(sys.argv[5])
with EndTogether(own, functools.partial(report, own=own, directory=folder, debug=False)):
    assert allgather_bytes(b"here") == [b"here"] * count
    print("ready", flush=True)
    if what == "well":
        time.sleep(2.0 * me)
    if what == "error":
        if me == 1:
            raise KeyError("made up")
        if me == 2:
            time.sleep(600)  # as a collective on a TPU, which nothing interrupts
        allgather_bytes(b"never")
    if what == "agreed":
        if me == 0:  # the checkpoints of process 0 need longer
            with closing():  # metrics and checkpoints, whose closing marks itself, too
                with closing():
                    pass
                time.sleep(4 * ending.GRACE_SECONDS)
                print("closed", flush=True)
        raise ConfigError("the same on all")
    if what == "kill":
        time.sleep(600)
    if what == "hang":
        with Preemption() as stop:
            assert not stop.reached_before(0)
            with stop.suspended():  # a save that takes long
                time.sleep(5)
            for _ in range(4):  # an evaluation
                time.sleep(1)
                stop.still_alive()
            print("worked", flush=True)
            time.sleep(600)
    if what == "stop":
        with Preemption() as stop:
            step = 0
            while not stop.reached(step):
                step += 1
                allgather_bytes(b"")  # in step with each other, as training is
                time.sleep(0.05)
        print("stopped at", step, flush=True)
    if what == "mode":
        with StopAtOnce():
            time.sleep(600)
"""


def logs(folder: Path, count: int) -> list[str]:
    return [(folder / f"{i}.log").read_text() for i in range(count)]


def start(folder: Path, what: str, count: int):
    """Returns once all are ready."""
    processes = start_script(folder, SCRIPT, count=count, devices=1, arguments=(what, str(folder)))
    last = time.monotonic() + 120
    while not all("ready" in log for log in logs(folder, count)) and time.monotonic() < last:
        time.sleep(0.05)
    return processes


def test_an_error_on_one_of_four_ends_all(tmp_path: Path) -> None:
    processes = start(tmp_path, "error", 4)
    assert statuses(processes, 60) == [1, 2, 1, 1]
    found = logs(tmp_path, 4)
    (line,) = (line for line in found[1].splitlines() if line.startswith("rae_dit: "))
    (file,) = tmp_path.glob("traceback-*.log")
    assert line.startswith("rae_dit: rae_dit: got KeyError: 'made up'; expected none here; ")
    assert line.endswith(f"; traceback in {file}")
    assert "KeyError: 'made up'" in file.read_text()
    for log in (found[0], found[2], found[3]):
        assert f"rae_dit: process 1: {line.removeprefix('rae_dit: ')}\n" in log
    assert not any("Traceback" in log for log in found)


def test_an_error_of_all_is_the_error_of_each_and_cuts_off_no_write(tmp_path: Path) -> None:
    assert statuses(start(tmp_path, "agreed", 2), 60) == [2, 2]
    first, second = (log.splitlines() for log in logs(tmp_path, 2))
    assert first[-3:] == ["ready", "closed", "rae_dit: the same on all"]
    assert second[-2:] == ["ready", "rae_dit: the same on all"]


def test_sigterm_to_one_of_four_stops_all_at_one_step(tmp_path: Path) -> None:
    processes = start(tmp_path, "stop", 4)
    processes[2].send_signal(signal.SIGTERM)
    assert statuses(processes, 60) == [0] * 4
    (step,) = {log.splitlines()[-1] for log in logs(tmp_path, 4)}
    assert step.startswith("stopped at ")


def test_sigkill_of_one_of_four_ends_all(tmp_path: Path) -> None:
    processes = start(tmp_path, "kill", 4)
    processes[2].send_signal(signal.SIGKILL)
    found = statuses(processes, 60)
    assert found[2] == -signal.SIGKILL
    assert None not in found
    assert 0 not in found


def test_sigterm_ends_training_that_hangs_and_modes_without_steps(tmp_path: Path) -> None:
    for what, line in (
        ("hang", "stopped by SIGTERM; nothing happened for 2 s after it"),
        ("mode", "stopped by SIGTERM"),
    ):
        processes = start(tmp_path, what, 2)
        processes[1].send_signal(signal.SIGTERM)
        assert statuses(processes, 60) == [143, 143]
        found = logs(tmp_path, 2)
        assert all(log.endswith(f"rae_dit: {line}\n") for log in found)
        assert [what == "hang"] * 2 == ["worked" in log for log in found]


def test_who_is_done_waits_for_the_others(tmp_path: Path) -> None:
    assert statuses(start(tmp_path, "well", 2), 60) == [0, 0]
