"""The printed line, with an injected clock."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from rae_dit.training.progress import (
    DATA_WAIT,
    IMAGES,
    MFU,
    SECONDS,
    Progress,
    Throttle,
    duration,
    plain,
)

ROOT = Path(__file__).parent.parent


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Step:
    """A step on a device, which is done when somebody waits for it."""

    done = False

    def block_until_ready(self) -> None:
        self.done = True


def resumed(clock: Clock, **changes: float) -> Progress:
    return Progress(first_step=1000, max_steps=2500, batch_size=64, clock=clock, **changes)


def test_compilation_and_former_steps_do_not_count() -> None:
    clock = Clock()
    progress = resumed(clock)
    clock.now += 50.0  # compilation
    progress.update(1001)
    clock.now += 19.9
    assert progress.rates(1200) == pytest.approx({IMAGES: 640.0, SECONDS: 0.1, DATA_WAIT: 0})
    line = progress.line(1200, {"train/loss": 0.8123, "val/loss": 1.5})
    assert line == ("step 1200/2500 · loss 0.812 · val/loss 1.5 · 640 img/s · ETA 2m10s")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((1640.2, "1640"), (415.4, "415"), (64.03, "64"), (0.81234, "0.812"), (2e-4, "0.0002")),
        *((-1234.5, "-1234"), (0, "0"), (float("nan"), "nan"), (3e12, "3e+12")),
    ],
)
def test_numbers_are_plain(value: float, text: str) -> None:
    assert plain(value) == text


def test_speed_is_recent_and_the_rest_is_by_the_mean() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.update(1001)
    clock.now += 99 * 1.0
    progress.rates(1100)
    progress.line(1100, {})
    clock.now += 100 * 3.0
    line = progress.line(1200, {})
    mean = (99 + 300) / 199
    assert line == f"step 1200/2500 · 21.3 img/s · ETA {duration(1300 * mean)}"


def test_time_between_two_lines_of_one_step_is_not_speed() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.update(1001)
    clock.now += 9.9
    first = progress.rates(1100)
    clock.now += 1000.0  # validation
    assert progress.rates(1100) == first
    assert "640 img/s" in progress.line(1100, {"val/loss": 1.0})
    clock.now += 10.0
    assert progress.rates(1200)[SECONDS] == pytest.approx(0.1)
    assert "ETA 1h51m" in progress.line(1200, {})  # 1300 * 1019.9 / 199: it will happen again


def test_rates_are_not_shown_twice() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.update(1001)
    clock.now += 1.0
    line = progress.line(1002, {"train/loss": float("nan"), **progress.rates(1002)})
    assert line == "step 1002/2500 · loss nan · 64 img/s · ETA 24m58s"


def test_says_nothing_it_does_not_know() -> None:
    clock = Clock()
    progress = resumed(clock)
    assert progress.rates(1001) == {}
    assert progress.line(1001, {"train/loss": 2.0}) == "step 1001/2500 · loss 2"
    progress = resumed(clock)
    progress.update(1001)
    assert progress.line(1001, {}) == "step 1001/2500"
    assert progress.line(1002, {}) == "step 1002/2500"  # a clock that did not move


def test_a_finished_run_has_no_time_left() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.update(1001)
    clock.now += 1499.0
    assert progress.line(2500, {}).endswith("ETA 0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (45, "45s"),
        (59.6, "1m00s"),
        (130, "2m10s"),
        (3 * 3600 + 5 * 60 + 59, "3h05m"),
        (28 * 3600, "1d04h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_begins_with_what_people_look_for_and_hides_counters_of_zero() -> None:
    progress = resumed(Clock())
    quiet = {"train/bad_steps": 0.0, "train/skipped": 0, "train/rollbacks": 0}
    metrics = {"train/accuracy": 0.5, "train/lr": 2e-4, "train/gradient_norm": 0.37, **quiet}
    line = progress.line(1001, metrics | {"train/loss": 0.412, "train/replaced_images": 0})
    assert line == "step 1001/2500 · loss 0.412 · grad_norm 0.37 · lr 0.0002 · accuracy 0.5"
    line = progress.line(1001, {"train/bad_steps": 3.0, "train/skipped": 1.0, "train/loss": 1.0})
    assert line == "step 1001/2500 · loss 1 · bad_steps 3 · skipped 1"


def test_the_host_is_two_steps_ahead_and_waits_for_the_first() -> None:
    throttle, steps = Throttle(), [Step() for _ in range(6)]
    done, in_flight = [], []
    for step in steps:
        in_flight.append(throttle.add(step))
        done.append([step.done for step in steps].count(True))
    assert done == [1, 1, 1, 2, 3, 4]
    assert in_flight == [0, 1, 2, 2, 2, 2]
    assert [step.done for step in steps] == [True] * 4 + [False] * 2


def test_share_of_waiting_and_of_the_peak() -> None:
    clock = Clock()
    progress = resumed(clock, peak_images=1600.0)
    with progress.waiting():
        clock.now += 100.0  # the first batch: workers start
    progress.update(1001)
    for step in range(1002, 1101):
        with progress.waiting():
            clock.now += 0.025
        clock.now += 0.075
        progress.update(step)
    rates = progress.rates(1100)
    assert rates == pytest.approx({IMAGES: 640, SECONDS: 0.1, DATA_WAIT: 0.25, MFU: 0.4})
    assert "640 img/s · MFU 40.0% · ETA" in progress.line(1100, rates)
    for step in range(1101, 1201):
        clock.now += 0.1
        progress.update(step)
    assert progress.rates(1200)[DATA_WAIT] == 0


def test_drawing_a_picture_is_no_training() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.update(1001)
    clock.now += 5.0
    with progress.paused():
        clock.now += 1000.0
    clock.now += 4.9
    assert progress.rates(1100)[SECONDS] == pytest.approx(0.1)


def test_steps_that_were_taken_back_took_their_time() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.update(1001)
    clock.now += 99.0
    progress.rates(1100)
    progress.went_back(1100, 1050)
    assert progress.rates(1050) == {}
    clock.now += 50.0
    assert progress.rates(1100)[SECONDS] == pytest.approx(1.0)
    assert progress.line(1100, {}).endswith(f"ETA {duration(1400)}")  # 149 steps in 149 s


def test_what_is_known_of_each_block_is_not_printed() -> None:
    progress = resumed(Clock())
    line = progress.line(1001, {"train/loss": 1.0, "rms/head_0": 1.0, "attention_logit/head_0": 1})
    assert line == "step 1001/2500 · loss 1"


LIVE = """
import logging, time
from rae_dit.training.progress import Progress
log = logging.getLogger("rae_dit")
log.handlers, log.propagate = [logging.StreamHandler()], False
log.setLevel(logging.INFO)
with Progress(first_step=10, max_steps=20, batch_size=1, live=True) as progress:
    for step in range(11, 21):
        progress.update(step)
        time.sleep(0.12)
        if step == 15:
            log.info(progress.line(step, {}))
"""


def run_live(stderr: int) -> None:
    command = [sys.executable, "-c", LIVE]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm"}
    subprocess.run(command, stderr=stderr, env=environment, check=True, timeout=60)


def test_a_terminal_shows_a_bar_that_moves_below_the_lines() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    run_live(theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    text = shown.decode()
    bars = [part for part in text.split("\r") if "step/s" in part]
    assert len(bars) > 4
    assert any("14/20" in bar and "<" in bar for bar in bars)  # elapsed<remaining
    (line,) = [part for part in text.replace("\r", "\n").split("\n") if "ETA" in part]
    assert line.startswith("step 15/20 · ")


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        run_live(log.fileno())
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("step 15/20 · ")
    assert "\r" not in line
