"""Timing shared by the benchmarks: warm-up, windows of repeated calls, the median window, turns."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_SECONDS = 5.0  # of products, after which a large GPU's clock is what its power allows


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
    first = first_call(call, wait)
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


def heat(product: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> None:
    """Multiplies matrices for so long that the device's clock is that of a run of days."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        results = [product() for _ in range(100)]
        wait(results)


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
