"""Work in a thread that the end of the program does not wait for."""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future


class Background(threading.Thread):
    """A thread that no end waits for."""


def in_background(work: Callable[[], None], name: str) -> "Future[None]":
    """Starts work in a thread of its own; the future has its end, or its error.

    Python would wait for any thread of a pool before it ends, and kills a daemon's thread inside a
    compiler with the whole process: commands end with `leave_background` instead.
    """
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    Background(target=run, name=name).start()
    return future


def leave_background(ended: SystemExit) -> None:
    """Ends the process at once if such work goes on, as `ended` asks; else returns."""
    if not any(isinstance(thread, Background) for thread in threading.enumerate()):
        return
    status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if isinstance(ended.code, str):
        print(ended.code, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)
