"""Timing shared by the benchmarks: warm-up, windows of repeated calls, the median window, turns."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

WARM_SECONDS = 5.0  # of products, after which a large GPU's clock is what its power allows


class Timed(NamedTuple):
    """A call to time.

    Attributes:
        call: queues the work and gives its result.
        describe: makes the line of the seconds of the first call and of one in the median window.
        before: is called before the windows.
        repeats: calls a window, whatever else is asked for; None for what is.
        compile: takes the place of the first call where that should not take memory yet.
    """

    call: Callable[[], Any]
    describe: Callable[[tuple[float, float]], dict[str, Any]]
    before: Callable[[], object] = lambda: None
    repeats: int | None = None
    compile: Callable[[], object] | None = None


def median_seconds(
    call: Callable[[], Any],
    wait: Callable[[Any], Any],
    *,
    windows: int = 5,
    repeats: int = 10,
    window_seconds: float = 0.0,
) -> tuple[float, float]:
    """Returns the seconds of the first call, compilation included, and of one in the median window.

    Args:
        call: queues work on the device and gives its result.
        wait: blocks until such a result is there.
        windows: how many are timed.
        repeats: calls a window, between two waits.
        window_seconds: of a window, roughly, which then decides `repeats`; 0 for as many as said.
    """
    first = first_call(call, wait)
    if window_seconds:
        repeats = max(1, round(window_seconds / first_call(call, wait)))
    found = []
    for _ in range(windows):
        start = time.perf_counter()
        for _ in range(repeats):
            result = call()
        wait(result)
        found.append((time.perf_counter() - start) / repeats)
    return first, statistics.median(found)


def first_call(call: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    """Returns the seconds of one call and its result."""
    start = time.perf_counter()
    wait(call())
    return time.perf_counter() - start


def heat(
    call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float, *, calls: int = 100
) -> None:
    """Keeps a device busy for so long that its clock is that of a run of days.

    Args:
        call: queues work, such as a product of large matrices.
        wait: blocks until such results are there.
        seconds: to go on.
        calls: between two waits.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wait([call() for _ in range(calls)])


def wait_for_turn(path: str) -> None:
    """Says that everything is compiled, and waits until nothing else uses the device.

    So several benchmarks compile at once and are timed one after the other: this one makes
    PATH.ready, and whoever started them makes PATH.go.

    Args:
        path: of both files, without their endings; '' waits for nothing.
    """
    if path:
        Path(f"{path}.ready").touch()
        while not Path(f"{path}.go").exists():
            time.sleep(0.05)


def rates(
    seconds: tuple[float, float], images: int, tflop_per_image: float, devices: int = 1
) -> dict[str, float]:
    """Returns milliseconds, images/s and TFLOP/s of a part that takes `images` images a call."""
    first, median = seconds
    return {
        "batch": images,
        "ms": round(1e3 * median, 2),
        "images_per_second": round(images / median, 2),
        "tflops_per_device": round(images * tflop_per_image / median / devices, 1),
        "first_call_seconds": round(first, 1),
    }
