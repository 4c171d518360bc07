"""Timing shared by the benchmarks: warm-up, windows of repeated calls, the median window."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_seconds(
    call: Callable[[], Any],
    wait: Callable[[Any], Any],
    *,
    windows: int = 5,
    repeats: int = 10,
) -> tuple[float, float]:
    """Returns the seconds of the first call, compilation included, and of one in the median window.

    Args:
        call: queues work on the device and gives its result.
        wait: blocks until such a result is there.
        windows: how many are timed.
        repeats: calls a window, between two waits.
    """
    start = time.perf_counter()
    wait(call())
    first = time.perf_counter() - start
    found = []
    for _ in range(windows):
        start = time.perf_counter()
        for _ in range(repeats):
            result = call()
        wait(result)
        found.append((time.perf_counter() - start) / repeats)
    return first, statistics.median(found)


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
