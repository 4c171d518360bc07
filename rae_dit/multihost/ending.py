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
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import NoReturn, Self

from rae_dit.failures import describe_error
from rae_dit.multihost import coordination

POLL_SECONDS = 1.0
GRACE_SECONDS = 5.0  # for a process that is about to end with the same error by itself
CLOSE_SECONDS = 360.0  # for the last writes of a process: more than storage/gcs.py's PATIENCE
FAREWELL_SECONDS = 15.0  # process 0, which serves the others, ends this long after them at most
REFUSED, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143  # statuses
_LONGEST_WAIT = 24 * 3600 * 1000  # milliseconds; for a process that still writes its results
_LONGEST_LINE = 2000


class _Watch:
    """A thread that calls a function once a second; none where there is one process."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self.closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_on(self) -> bool:
        """Whether it was started."""
        return self._thread is not None

    def start(self) -> None:
        if coordination.client() is not None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self.closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self.closed.wait(POLL_SECONDS):
            self._look()


class EndTogether(AbstractContextManager["EndTogether"]):
    """Ends all processes when one of them leaves the block with an error.

    That process ends with status 2; the others with 1. Each of them names the error, and process
    0's log with it. At the end of the block processes wait for each other. Does nothing where there
    is one process.
    """

    def __init__(
        self,
        expected: tuple[type[Exception], ...],
        report: Callable[[BaseException], str] = describe_error,
    ) -> None:
        """Starts nothing.

        Args:
            expected: errors that are never the mere consequence of another process's end.
            report: makes the line of an error; called once, on a process that has one of its own.
        """
        self._expected = expected
        self._report = report
        self._watch = _Watch(self._look)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process, or waits for the others."""
        if not self._watch.is_on:
            return
        if error is None:
            try:
                coordination.client().wait_at_barrier("rae_dit/end", _LONGEST_WAIT)
            except Exception as failure:  # another process has died: JAX's own kinds
                error = failure
        self._watch.stop()
        if error is not None:
            self._end(error)

    def _end(self, error: BaseException) -> NoReturn:
        """Ends this process because of its own error, or of one that followed from another's."""
        if not isinstance(error, self._expected):
            if found := first_line(coordination.posted(coordination.ERRORS)):
                leave(found, FAILED)  # such as a collective whose peer has gone
            if isinstance(error, KeyboardInterrupt):
                end_process("interrupted", INTERRUPTED)
        end_process(self._report(error), REFUSED)

    def _look(self) -> None:
        if found := first_line(coordination.posted(coordination.ERRORS)):
            if not self._watch.closed.wait(GRACE_SECONDS):
                wait_while_closing({coordination.process_id()}, self._watch.closed)
            if not self._watch.closed.is_set():
                leave(found, FAILED)


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
        self._asked: float | None = None  # when the signal was first seen
        self._alive = time.monotonic()
        self._suspended = 0
        self._watch = _Watch(self._look)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops watching."""
        self._watch.stop()

    def still_alive(self) -> None:
        """Starts the wait anew: this process does something."""
        self._alive = time.monotonic()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Waits during the block however long it takes, such as a write to slow storage."""
        self._suspended += 1
        try:
            yield
        finally:
            self._alive = time.monotonic()
            self._suspended -= 1

    def _look(self) -> None:
        now = time.monotonic()
        if self._asked is None and coordination.stop_is_requested():
            self._asked = now
        if self._asked is None or now - max(self._asked, self._alive) < self._grace:
            return
        if self._suspended or coordination.process_id() in coordination.posted(
            coordination.CLOSING
        ):
            return
        late = f"; nothing happened for {self._grace:g} s after it" if self._grace else ""
        end_process(f"stopped by SIGTERM{late}", TERMINATED)


@contextmanager
def closing() -> Iterator[None]:
    """Marks a block that finishes the writes of this process: no error of another cuts it off.

    Processes that meet the same error, or that stop, are not done with their writes at one time.
    A block inside another one changes nothing.
    """
    if coordination.process_id() in coordination.posted(coordination.CLOSING):
        yield
        return
    coordination.post(coordination.CLOSING, "yes")
    try:
        yield
    finally:
        coordination.withdraw(coordination.CLOSING)


def wait_while_closing(processes: Set[int], done: threading.Event) -> None:
    """Waits until these processes have finished their last writes, or `done` is set."""
    last = time.monotonic() + CLOSE_SECONDS
    while processes & coordination.posted(coordination.CLOSING).keys():
        if time.monotonic() > last or done.wait(0.2):
            return


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
    # Without this one's heartbeat JAX would end them within a minute.
    others = {*range(coordination.process_count())} - {coordination.process_id()}
    wait_while_closing(others, threading.Event())
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
