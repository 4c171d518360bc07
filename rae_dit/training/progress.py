"""Speed and remaining time of a run, measured on the host's clock."""

import time
from collections.abc import Callable, Mapping
from typing import SupportsFloat

IMAGES = "speed/images_per_second"
SECONDS = "speed/seconds_per_step"


class Progress:
    """Speed and remaining time of a run, for the line that is printed.

    The clock starts at `compiled`, so that neither compilation nor the steps of a former run count.
    Speed is that of the steps since the last measurement, without the time between measuring a step
    and printing its last line (validation). The remaining time follows the mean since the start,
    which includes validation because what is left includes it too.
    """

    def __init__(
        self,
        *,
        first_step: int,
        max_steps: int,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes an instrument whose clock stands still.

        Args:
            first_step: steps that were done before this process, 0 for a new run.
            max_steps: the step at which the run ends.
            batch_size: images per step over all processes.
            clock: seconds, never running backwards.
        """
        self._first_step = first_step
        self._max_steps = max_steps
        self._batch_size = batch_size
        self._clock = clock
        self._start: tuple[int, float] | None = None  # step and second
        self._previous: tuple[int, float] | None = None  # of the last measurement
        self._measured: tuple[int, dict[str, float]] | None = None

    def compiled(self) -> None:
        """Starts the clock: the first step of this process, compilation included, is done."""
        self._start = self._previous = (self._first_step + 1, self._clock())

    def rates(self, step: int) -> dict[str, float]:
        """Measures the speed since the last measurement; asked again at one step, repeats it.

        Args:
            step: number of finished steps.

        Returns:
            {IMAGES: images per second, SECONDS: seconds per step}, or {} before the second step.
        """
        if self._measured is None or self._measured[0] != step:
            now = (step, self._clock())
            seconds = _seconds_per_step(self._previous, now)
            known = (
                {} if seconds is None else {IMAGES: self._batch_size / seconds, SECONDS: seconds}
            )
            self._measured = (step, known)
            self._previous = now
            self._start = self._start or now
        return dict(self._measured[1])

    def line(self, step: int, metrics: Mapping[str, SupportsFloat]) -> str:
        """Returns the line to print at `step`.

        Such as 'step 1200/2500 · loss 0.812 · 640 images/s · 0.10 s/step · ETA 2m10s'; what cannot
        be known yet is left out. The prefix 'train/' of names is not shown.

        Args:
            step: number of finished steps.
            metrics: name -> number or scalar array; the rates may be among them.
        """
        rates = self.rates(step)
        parts = [f"step {step}/{self._max_steps}"]
        parts += [
            f"{name.removeprefix('train/')} {float(value):.3g}"
            for name, value in metrics.items()
            if name not in (IMAGES, SECONDS)
        ]
        if rates:
            parts += [f"{rates[IMAGES]:.3g} images/s", f"{rates[SECONDS]:.2g} s/step"]
        self._previous = (step, self._clock())
        mean = _seconds_per_step(self._start, self._previous)
        if mean is not None:
            parts.append(f"ETA {duration(mean * max(0, self._max_steps - step))}")
        return " · ".join(parts)


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
