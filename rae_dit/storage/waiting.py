"""A word about waits for a bucket that take long."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rae_dit.storage.places import is_url

log = logging.getLogger(__name__)

SPEAK_AFTER, SPEAK_EVERY = 10.0, 60.0  # seconds until a wait is logged, and logged again


@contextmanager
def speaking(path: Path, what: str) -> Iterator[None]:
    """Logs a line if the block takes more than 10 s, and every minute; not for paths on a disk.

    Args:
        path: that is waited for.
        what: is waited for, such as "the write of step 20".
    """
    if not is_url(path):
        yield
        return
    done, started = threading.Event(), time.monotonic()

    def speak() -> None:
        seconds = SPEAK_AFTER
        while not done.wait(seconds):
            log.info("%s: waiting for %s for %.0f s so far", path, what, time.monotonic() - started)
            seconds = SPEAK_EVERY

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
