"""How a worker process lives and dies: with the run it works for, and not before."""

import multiprocessing
import os
import signal
import threading
from types import FrameType

# Seconds that a worker lives on after a notice to stop, unless its run ends it before.
_GRACE = 120


def start_worker(index: int, count: int) -> None:
    """Sets up worker `index` of `count`; grain calls it in the new process.

    A cluster that preempts a job signals all of its processes. The run then saves and closes its
    workers, and until then it needs them. And a run that is killed cannot close them: without a
    watch they would wait for it for ever, with their batches in memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_later(number: int, frame: FrameType | None) -> None:
    """Puts the end off. It does come: a parent that waits for it must not wait for ever."""
    signal.alarm(_GRACE)


def _end_with_parent() -> None:
    """Waits for the end of the parent, however it comes, then ends this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
