"""Speed and remaining time of a run on the host's clock: metrics, a log line, a progress bar."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, SupportsFloat

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

IMAGES = "speed/images_per_second"
SECONDS = "speed/seconds_per_step"
DATA_WAIT = "speed/data_wait_share"
MFU = "speed/mfu"

# Sections that are shown otherwise, or are too many
UNPRINTED = ("speed/", "goodput/", "rms/", "attention_logit/", "train/update_rms/")
FIRST = ("loss", "grad_norm", "lr")  # what people look for, before all other metrics
SHORT = {"gradient_norm": "grad_norm"}
ANOMALIES = ("skipped", "bad_steps", "replaced_images", "rollbacks")  # printed if not zero


class _Result(Protocol):
    def block_until_ready(self) -> Any: ...


class Throttle:
    """Keeps the host at most `ahead` steps before the device.

    So what is logged has happened, and time spent waiting for data is time in which the device is
    about to run out of work.
    """

    def __init__(self, ahead: int = 2) -> None:
        """Starts with no step in flight."""
        self._ahead = ahead
        self._in_flight: deque[_Result] = deque()
        self._is_first = True

    def add(self, result: _Result) -> int:
        """Adds a dispatched step; blocks until at most `ahead` are in flight.

        The first step, which compiles, is waited for.

        Args:
            result: an array that is ready when the step is done.

        Returns:
            Number of steps in flight.
        """
        self._in_flight.append(result)
        while self._in_flight and (self._is_first or len(self._in_flight) > self._ahead):
            self._in_flight.popleft().block_until_ready()
        self._is_first = False
        return len(self._in_flight)


class Progress(AbstractContextManager):
    """Speed and remaining time of a run, as metrics, as a log line and as a progress bar.

    The clock starts when the first step of this process is done, so that neither compilation nor
    the steps of a former run count. Speed is that of the steps since the last measurement, without
    the time between measuring a step and printing its line (hooks). The remaining time follows the
    mean since the start, which includes hooks because what is left includes them too.
    """

    def __init__(
        self,
        *,
        first_step: int,
        max_steps: int,
        batch_size: int,
        peak_images: float | None = None,
        live: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates the meter; timing starts after the first step.

        Args:
            first_step: steps that were done before this process, 0 for a new run.
            max_steps: the step at which the run ends.
            batch_size: images per step over all processes.
            peak_images: images a second at the devices' peak FLOP/s, which MFU is a share of; None
                where it is not known.
            live: show a bar below the log where stderr is a terminal.
            clock: seconds, never running backwards.
        """
        self._first_step = first_step
        self._max_steps = max_steps
        self._batch_size = batch_size
        self._peak_images = peak_images
        self._clock = clock
        self._start: tuple[int, float] | None = None  # step and second
        self._previous: tuple[int, float] | None = None  # of the last measurement
        self._measured: tuple[int, dict[str, float]] | None = None
        self._waited = 0.0  # seconds for data since the last measurement
        self._shown = ExitStack()
        self._bar = tqdm(
            initial=first_step,
            total=max_steps,
            unit="step",
            disable=not (live and sys.stderr.isatty()),
            dynamic_ncols=True,
            leave=False,
        )
        if not self._bar.disable:
            self._shown.enter_context(logging_redirect_tqdm([logging.getLogger("rae_dit")]))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Times a block that waits for data."""
        begin = self._clock()
        yield
        self._waited += self._clock() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps the time of a block that is no training out of the speed."""
        begin = self._clock()
        yield
        if self._previous is not None:
            self._previous = (self._previous[0], self._previous[1] + self._clock() - begin)

    def update(self, finished: int) -> None:
        """Takes note of finished steps; call it after every step is dispatched.

        Args:
            finished: number of the newest step that is done.
        """
        if self._start is None:
            self._start = self._previous = (finished, self._clock())
            self._waited = 0.0
            self._bar.unpause()
        self._bar.update(finished - self._bar.n)

    def went_back(self, newer: int, step: int) -> None:
        """Continues from `step` after `newer` steps were done; the time they took stays counted."""
        if self._start is not None:
            self._start = (self._start[0] + step - newer, self._start[1])
        self._previous = (step, self._clock())
        self._measured, self._waited = None, 0.0

    def rates(self, step: int) -> dict[str, float]:
        """Measures the speed since the last measurement; asked again at one step, repeats it.

        Args:
            step: number of finished steps.

        Returns:
            {} before the second step; then IMAGES a second, SECONDS a step, DATA_WAIT: share of the
            time in which the host waited for data; and MFU, if the peak is known.
        """
        if self._measured is None or self._measured[0] != step:
            now = (step, self._clock())
            known: dict[str, float] = {}
            seconds = _seconds_per_step(self._previous, now)
            if seconds is not None and self._previous is not None:
                known[IMAGES] = self._batch_size / seconds
                known[SECONDS] = seconds
                known[DATA_WAIT] = self._waited / (now[1] - self._previous[1])
                if self._peak_images is not None:
                    known[MFU] = known[IMAGES] / self._peak_images
            self._measured = (step, known)
            self._previous, self._waited = now, 0.0
            self._start = self._start or now
        return dict(self._measured[1])

    def line(self, step: int, metrics: Mapping[str, SupportsFloat]) -> str:
        """Returns the line to print at `step`.

        Such as 'step 1200/2500 · loss 0.412 · grad_norm 0.37 · lr 0.0002 · 415 img/s · ETA 3h12m';
        what is not known yet is left out, and so are anomaly counters of zero. The prefix 'train/'
        of names is not shown, nor the telemetry of each block.

        Args:
            step: number of finished steps.
            metrics: name -> number or scalar array; the rates may be among them.
        """
        rates = self.rates(step)
        parts = [f"step {step}/{self._max_steps}"]
        parts += [f"{name} {plain(value)}" for name, value in _printed(metrics)]
        if rates:
            parts.append(f"{plain(rates[IMAGES])} img/s")
        if MFU in rates:
            parts.append(f"MFU {rates[MFU]:.1%}")
        self._previous = (step, self._clock())
        mean = _seconds_per_step(self._start, self._previous)
        if mean is not None:
            parts.append(f"ETA {duration(mean * max(0, self._max_steps - step))}")
        return " · ".join(parts)

    def __exit__(self, *exception: object) -> None:
        """Closes; an exception of the block propagates."""
        self.close()

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()
        self._shown.close()


def _printed(metrics: Mapping[str, SupportsFloat]) -> list[tuple[str, float]]:
    """Returns the metrics of a log line by their short names, those of FIRST first."""
    values: dict[str, float] = {}
    for name, value in metrics.items():
        short = name.removeprefix("train/")
        is_quiet = short in ANOMALIES and float(value) == 0
        if not name.startswith(UNPRINTED) and not is_quiet:
            values[SHORT.get(short, short)] = float(value)
    leading = {name: values[name] for name in FIRST if name in values}
    return list((leading | values).items())


def _seconds_per_step(earlier: tuple[int, float] | None, later: tuple[int, float]) -> float | None:
    """Returns the mean time of the steps in between, None if no step or no time has passed."""
    if earlier is None:
        return None
    steps, seconds = later[0] - earlier[0], later[1] - earlier[1]
    return seconds / steps if steps > 0 and seconds > 0 else None


def plain(value: float) -> str:
    """Writes a number with three digits or more, and whole ones of some length without exponent.

    Such as 0.0002, 2.13, 415, 1640.
    """
    return f"{value:.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Writes a time as its two leading units: '45s', '2m10s', '3h05m', '1d04h'."""
    whole = round(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02d}h"
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minutes}m{second:02d}s" if minutes else f"{second}s"
