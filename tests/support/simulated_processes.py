"""Processes that add up their arrays, simulated by threads: any number of them, without devices."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from rae_dit.multihost.sums import SumOverDevices


class Simulated(SumOverDevices):
    """One of `count` processes; only what devices do is done by numpy."""

    def __init__(self, index: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.count, self.index = len(slots), index
        self.given = 0  # bytes that this process has put into collectives
        self._slots, self._barrier = slots, barrier

    def _sum_block(self, values: np.ndarray) -> np.ndarray:
        self.given += values.nbytes
        self._slots[self.index] = values
        self._barrier.wait(60)
        total = np.sum(self._slots, axis=0, dtype=values.dtype)
        self._barrier.wait(60)
        return total


def on_each(count: int, work: Callable[[Simulated], Any]) -> tuple[list[Any], list[int]]:
    """Runs `work` on every process; returns the results and the bytes given by each."""
    slots: list[Any] = [None] * count
    barrier = threading.Barrier(count)
    sums = [Simulated(index, slots, barrier) for index in range(count)]
    results: list[Any] = [None] * count

    def run(one: Simulated) -> None:
        try:
            results[one.index] = work(one)
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(one,)) for one in sums]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, [one.given for one in sums]
