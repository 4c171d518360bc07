"""Signals and lifetime of data worker processes."""

import multiprocessing
import os
import signal
import threading
from types import FrameType

# Seconds that a worker lives on after a notice to stop, unless its run ends it before.
_GRACE = 120


def start_worker(index: int, count: int) -> None:
    """Sets up worker `index` of `count`; grain calls it in the new process.

    A cluster that preempts a job signals all of its processes; the run needs its workers until it
    has saved, and then closes them. A run that is killed cannot close them: without a watch they
    would wait forever, with their batches in memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_later(number: int, frame: FrameType | None) -> None:
    """On SIGTERM, keeps the worker alive for 120 s so that the run can save a checkpoint."""
    signal.alarm(_GRACE)


def _end_with_parent() -> None:
    """Waits until the parent process ends, then ends this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
