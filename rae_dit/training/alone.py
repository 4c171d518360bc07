"""One run at a time in a workdir: two would write over each other's checkpoints and metrics."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock

from rae_dit.config.check import refusal

log = logging.getLogger(__name__)

WAIT_SECONDS = 30.0


@contextlib.contextmanager
def alone_in(workdir: Path, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Holds a lock in a workdir, which is made if needed.

    The system takes the lock back when the process ends, in whatever way. One that was killed may
    need a moment for that, so it is waited for. Where files cannot be locked a warning is all.

    Args:
        workdir: of the run.
        wait_seconds: for how long.

    Raises:
        ConfigError: another run is at work there.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(workdir / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("another run is at work in %s; its end is waited for", workdir)
            lock.acquire(timeout=wait_seconds)
    except filelock.Timeout as error:
        expected = "a directory in which no other run is at work; end that one, or take another"
        raise refusal("--workdir", str(workdir), expected) from error
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s): see that one run at a time uses it", workdir, error)
    try:
        yield
    finally:
        lock.release()
