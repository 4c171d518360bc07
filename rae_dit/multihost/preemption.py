"""Requests to stop: SIGTERM, heard by all processes of a run."""

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Self

from rae_dit.multihost.ending import StopAtOnce

# After SIGTERM without a step or a batch of an evaluation coming to its end: the run hangs. Saves
# may take longer. Clouds give less; who gives more (SLURM) may have an evaluation to wait for.
HANG_SECONDS = 300.0


class Preemption(AbstractContextManager["Preemption"]):
    """Hears SIGTERM while it is open: a request to save and stop, at a step all processes agree on.

    Several processes: JAX's coordination service hears the signal from `initialize` on, and agrees
    on a step. A single process needs no agreement, so a signal handler sets a flag. Python runs it
    once the running call returns (a compile, a wait for the device), so no signal is lost there.
    Several processes that do nothing for `HANG_SECONDS` after a request end with status 143: no
    step, no batch (`still_alive`), and no write (`suspended`).
    """

    def __init__(self) -> None:
        """Starts without a request."""
        self._requested = False
        self._former: Any = None
        self._watchdog = StopAtOnce(HANG_SECONDS)

    def __enter__(self) -> Self:
        import jax

        self._alone = jax.process_count() == 1
        if self._alone and threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._request) or signal.SIG_DFL
        self._watchdog.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the former handler."""
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)
            self._former = None
        self._watchdog.__exit__(*exception)

    def reached(self, step: int) -> bool:
        """Tells whether to save `step` and stop; call it once a step, on all processes."""
        from jax.experimental import multihost_utils

        if self._alone:
            return self._requested
        self._watchdog.still_alive()
        try:
            return multihost_utils.reached_preemption_sync_point(step)
        except RuntimeError:  # the user has turned JAX's preemption service off
            return False

    def still_alive(self) -> None:
        """Says that this process does something: it has finished a batch between two steps."""
        self._watchdog.still_alive()

    def suspended(self) -> AbstractContextManager[None]:
        """Makes a block that may take however long it does, such as a save."""
        return self._watchdog.suspended()

    def reached_before(self, first: int) -> bool:
        """Tells whether to stop before the step after `first`: the signal came during loading.

        JAX files a request under (last polled step + 1). Polling 1 finds one that came before any
        poll; polling `first` makes JAX file later ones under the steps that this run takes.
        """
        return self.reached(1) or self.reached(first)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
