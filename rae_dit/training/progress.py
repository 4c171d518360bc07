"""Speed and remaining time of a run, measured on the host's clock and shown while it goes."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, SupportsFloat

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from rae_dit.closing import Closing

IMAGES = "speed/images_per_second"
SECONDS = "speed/seconds_per_step"
DATA_WAIT = "speed/data_wait_share"
MFU = "speed/mfu"

AHEAD = 2  # steps that the host may have begun while the device is still at work on an older one
UNPRINTED = ("speed/", "rms/", "attention_logit/")  # sections: shown otherwise, or too many


class _Result(Protocol):
    def block_until_ready(self) -> Any: ...


class Progress(Closing):
    """Speed and remaining time of a run, as metrics, as a printed line and as a live bar.

    The clock starts when the first step of this process is done, so that neither compilation nor
    the steps of a former run count. Speed is that of the steps since the last measurement, without
    the time between measuring a step and printing its line (validation). The remaining time follows
    the mean since the start, which includes validation because what is left includes it too.

    Steps are begun ahead of the device, but no more than AHEAD: so what is shown has happened, and
    time spent waiting for data is time in which the device is about to run out of work.
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
        """Makes an instrument whose clock stands still.

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
        self._under_way: deque[_Result] = deque()
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

    def begun(self, step: int, result: _Result) -> None:
        """To be told of every step as soon as the device has been given it.

        Waits until the device is at most AHEAD steps behind; for the first step of this process,
        whose compilation is over then, until it is done.

        Args:
            step: its number, from 1.
            result: something that is ready when the step is done.
        """
        self._under_way.append(result)
        first = self._start is None
        while self._under_way and (first or len(self._under_way) > AHEAD):
            self._under_way.popleft().block_until_ready()
        if first:
            self._start = self._previous = (step, self._clock())
            self._waited = 0.0
            self._bar.unpause()
        self._bar.update(step - len(self._under_way) - self._bar.n)

    def went_back(self, newer: int, step: int) -> None:
        """The run continues from `step`, having done `newer`; what was done has taken its time."""
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

        Such as 'step 1200/2500 · loss 0.812 · 640 images/s · 0.10 s/step · ETA 2m10s'; what cannot
        be known yet is left out. The prefix 'train/' of names is not shown, nor what is known of
        each block.

        Args:
            step: number of finished steps.
            metrics: name -> number or scalar array; the rates may be among them.
        """
        rates = self.rates(step)
        parts = [f"step {step}/{self._max_steps}"]
        parts += [
            f"{name.removeprefix('train/')} {float(value):.3g}"
            for name, value in metrics.items()
            if not name.startswith(UNPRINTED)
        ]
        if rates:
            parts += [f"{rates[IMAGES]:.3g} images/s", f"{rates[SECONDS]:.2g} s/step"]
        if MFU in rates:
            parts.append(f"MFU {rates[MFU]:.1%}")
        self._previous = (step, self._clock())
        mean = _seconds_per_step(self._start, self._previous)
        if mean is not None:
            parts.append(f"ETA {duration(mean * max(0, self._max_steps - step))}")
        return " · ".join(parts)

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()
        self._shown.close()


def _seconds_per_step(earlier: tuple[int, float] | None, later: tuple[int, float]) -> float | None:
    """Returns the mean time of the steps in between, None if no step or no time has passed."""
    if earlier is None:
        return None
    steps, seconds = later[0] - earlier[0], later[1] - earlier[1]
    return seconds / steps if steps > 0 and seconds > 0 else None


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
