"""The end of a run of several processes: an error on one of them ends all, within seconds.

Without this a process that met an error would wait in JAX's shutdown for the others, and they in
a collective for it. So it posts its error on the coordination service, and ends without waiting.
A thread of each process looks there once a second.
"""

import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn, Self

from rae_dit.multihost import coordination

POLL_SECONDS = 1.0
GRACE_SECONDS = 5.0  # for a process that is about to end with the same error by itself
FAREWELL_SECONDS = 15.0  # process 0, which serves the others, ends this long after them at most
REFUSED, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143  # statuses
_LONGEST_WAIT = 24 * 3600 * 1000  # milliseconds; for a process that still writes its results
_LONGEST_LINE = 2000


class EndTogether(AbstractContextManager["EndTogether"]):
    """Ends all processes when one of them leaves the block with an error.

    That process ends with status 2 if the error is expected, else with 1 and a traceback; the
    others with 1. Each of them names the error, and process 0's log with it. At the end of the
    block processes wait for each other. Does nothing where there is one process.
    """

    def __init__(self, expected: tuple[type[Exception], ...]) -> None:
        """Starts nothing.

        Args:
            expected: errors whose message says all.
        """
        self._expected = expected
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Self:
        if coordination.client() is not None:
            self._watch = threading.Thread(target=self._look, daemon=True)
            self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process, or waits for the others."""
        if self._watch is None:
            return
        if error is None:
            try:
                coordination.client().wait_at_barrier("rae_dit/end", _LONGEST_WAIT)
            except Exception as failure:  # another process has died: JAX's own kinds
                error = failure
        self._closed.set()
        self._watch.join()
        if error is not None:
            self._end(error)

    def _end(self, error: BaseException) -> NoReturn:
        """Ends this process because of its own error, or of one that followed from another's."""
        if isinstance(error, self._expected):
            end_process(str(error), REFUSED)
        if found := first_line(coordination.posted(coordination.ERRORS)):
            leave(found, FAILED)  # such as a collective whose peer has gone
        if isinstance(error, KeyboardInterrupt):
            end_process("interrupted", INTERRUPTED)
        traceback.print_exception(error)
        end_process(f"{type(error).__name__}: {error}", FAILED)

    def _look(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            if found := first_line(coordination.posted(coordination.ERRORS)):
                if not self._closed.wait(GRACE_SECONDS):
                    leave(found, FAILED)
                return


class StopAtOnce(AbstractContextManager["StopAtOnce"]):
    """Ends all processes soon after SIGTERM to one of them, or once they do nothing more.

    JAX hears the signal and keeps it to itself, so a mode without steps to stop at would never
    end, and neither would training that hangs. Does nothing where there is one process.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        """Starts nothing.

        Args:
            grace_seconds: how long to wait after the signal, and after each `still_alive`.
        """
        self._grace = grace_seconds
        self._alive = time.monotonic()
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Self:
        if coordination.client() is not None:
            self._watch = threading.Thread(target=self._look, daemon=True)
            self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops watching."""
        self._closed.set()
        if self._watch is not None:
            self._watch.join()

    def still_alive(self) -> None:
        """Starts the wait anew: this process does something."""
        self._alive = time.monotonic()

    def _look(self) -> None:
        asked = None
        while not self._closed.wait(POLL_SECONDS):
            now = time.monotonic()
            if asked is None and coordination.stop_is_requested():
                asked = now
            if asked is not None and now - max(asked, self._alive) >= self._grace:
                late = f"; nothing happened for {self._grace:g} s after it" if self._grace else ""
                end_process(f"stopped by SIGTERM{late}", TERMINATED)


def end_process(line: str, status: int) -> NoReturn:
    """Ends this process with a line on stderr, and with it all others."""
    line = " ".join(line.split())[:_LONGEST_LINE]
    coordination.post(coordination.ERRORS, line)
    leave(line, status)


def leave(line: str, status: int) -> NoReturn:
    """Ends this process with a line on stderr, without JAX's shutdown, which waits for all."""
    print(f"rae_dit: {line}", file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    for child in multiprocessing.active_children():  # of the loader; they ignore SIGTERM
        child.kill()
    coordination.post(coordination.LEFT, "yes")
    if coordination.process_id() == 0:  # the service ends with this process: others read it first
        last = time.monotonic() + FAREWELL_SECONDS
        everyone = coordination.process_count()
        while len(coordination.posted(coordination.LEFT)) < everyone and time.monotonic() < last:
            time.sleep(0.2)
        time.sleep(0.2)
    os._exit(status)


def first_line(errors: dict[int, str]) -> str:
    """Returns the error of the first process that has one; '' if none has."""
    return next((f"process {number}: {errors[number]}" for number in sorted(errors)), "")
