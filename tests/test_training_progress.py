"""The printed line, with an injected clock."""

import pytest

from rae_dit.training.progress import IMAGES, SECONDS, Progress, duration


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def resumed(clock: Clock) -> Progress:
    return Progress(first_step=1000, max_steps=2500, batch_size=64, clock=clock)


def test_compilation_and_former_steps_do_not_count() -> None:
    clock = Clock()
    progress = resumed(clock)
    clock.now += 50.0  # compilation
    progress.compiled()
    clock.now += 19.9
    assert progress.rates(1200) == pytest.approx({IMAGES: 640.0, SECONDS: 0.1})
    line = progress.line(1200, {"train/loss": 0.8123, "val/loss": 1.5})
    assert line == (
        "step 1200/2500 · loss 0.812 · val/loss 1.5 · 640 images/s · 0.1 s/step · ETA 2m10s"
    )


def test_speed_is_recent_and_the_rest_is_by_the_mean() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.compiled()
    clock.now += 99 * 1.0
    progress.rates(1100)
    progress.line(1100, {})
    clock.now += 100 * 3.0
    line = progress.line(1200, {})
    mean = (99 + 300) / 199
    assert line == f"step 1200/2500 · 21.3 images/s · 3 s/step · ETA {duration(1300 * mean)}"


def test_time_between_two_lines_of_one_step_is_not_speed() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.compiled()
    clock.now += 9.9
    first = progress.rates(1100)
    clock.now += 1000.0  # validation
    assert progress.rates(1100) == first
    assert "0.1 s/step" in progress.line(1100, {"val/loss": 1.0})
    clock.now += 10.0
    assert progress.rates(1200)[SECONDS] == pytest.approx(0.1)
    assert "ETA 1h51m" in progress.line(1200, {})  # 1300 * 1019.9 / 199: it will happen again


def test_rates_are_not_shown_twice() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.compiled()
    clock.now += 1.0
    line = progress.line(1002, {"train/loss": float("nan"), **progress.rates(1002)})
    assert line == "step 1002/2500 · loss nan · 64 images/s · 1 s/step · ETA 24m58s"


def test_says_nothing_it_does_not_know() -> None:
    clock = Clock()
    progress = resumed(clock)
    assert progress.rates(1001) == {}
    assert progress.line(1001, {"train/loss": 2.0}) == "step 1001/2500 · loss 2"
    progress = resumed(clock)
    progress.compiled()
    assert progress.line(1001, {}) == "step 1001/2500"
    assert progress.line(1002, {}) == "step 1002/2500"  # a clock that did not move


def test_a_finished_run_has_no_time_left() -> None:
    clock = Clock()
    progress = resumed(clock)
    progress.compiled()
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
