"""Run directories: finding one, reading its config, locking it.

What one process sees may be a minute old on another: callers `decide` where it matters to all.
"""

import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import jax
import ml_collections

from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.config.check import invalid_value
from rae_dit.config.compatibility import complete
from rae_dit.multihost import decide, on_first_process, wait_until_visible
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import write_text
from rae_dit.storage.lease import Lease
from rae_dit.storage.places import is_committed, is_url, place

log = logging.getLogger(__name__)

WAIT_SECONDS = 30.0
LISTINGS = "listings"  # directory where listings of the data are kept


def find_run(path: str | Path) -> Path | None:
    """Finds the workdir of a workdir, checkpoints directory or step directory; else None."""
    path = place(path).absolute()
    if not path.is_dir():
        return None
    for directory in (path, path.parent, path.parent.parent):
        if (directory / "checkpoints").is_dir() and (directory / "config.json").is_file():
            return directory
    return None


def has_checkpoint(workdir: Path) -> bool:
    """Tells whether a run has saved a step, damaged or not."""
    return newest_step(workdir) is not None


def newest_step(workdir: Path) -> int | None:
    """Finds the newest saved step; None if there is none."""
    found = (path for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit())
    newest_first = sorted(found, key=lambda path: int(path.name), reverse=True)
    return next((int(path.name) for path in newest_first if is_committed(path)), None)


def read_config(workdir: Path) -> Config:
    """Reads config.json of a run.

    Raises:
        ConfigError: it is not JSON, or of another version of this project.
    """
    path = workdir / "config.json"
    return parse_config(path, path.read_text())


def parse_config(path: Path, text: str) -> Config:
    """Converts the text of a run's config.json; raises as `read_config`."""
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ConfigError(f"got {type(values).__name__}; expected an object with sections")
        return from_config_dict(ml_collections.ConfigDict(complete(values)))
    except (json.JSONDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not a config of this version: {error}") from error


@contextlib.contextmanager
def workdir_lock(
    workdir: Path, *, wait_seconds: float = WAIT_SECONDS
) -> Iterator[Callable[[], None]]:
    """Locks a workdir, which is created if needed, for the duration of a `with` block.

    On a disk, the system releases the lock when the process ends, in whatever way. A killed process
    may need a moment for that, hence the wait. A file system without locks only logs a warning. In
    a bucket it is a lease (storage/lease.py).

    Args:
        workdir: the directory.
        wait_seconds: how long to wait for another run to end, on a disk.

    Yields:
        A function that makes sure of the lock before something is written; raises StorageError if
        another run has taken it.

    Raises:
        ConfigError: another run holds the lock.
        StorageError: another run holds the lease, or the bucket cannot be used.
    """
    if is_url(workdir):
        with Lease(workdir) as lease:
            yield lease.check
        return
    workdir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(workdir / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("%s is locked by another run; waiting up to %g s", workdir, wait_seconds)
            lock.acquire(timeout=wait_seconds)
    except filelock.Timeout as error:
        expected = "a directory that no other run has locked; end that run, or use another one"
        raise invalid_value("--workdir", str(workdir), expected) from error
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s); do not start a second run there", workdir, error)
    try:
        yield lambda: None
    finally:
        lock.release()


@contextlib.contextmanager
def lock_for_all(workdir: Path) -> Iterator[Callable[[], None]]:
    """Locks a workdir on process 0, for all processes of a run.

    Yields:
        The function of `workdir_lock`, which does nothing on other processes.

    Raises:
        ConfigError: another run holds the lock, or a process does not see what process 0 writes
            there, as on a disk of its own: its part of a checkpoint would be lost. On all.
    """
    checks: list[Callable[[], None]] = []
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            try:
                checks.append(stack.enter_context(workdir_lock(workdir)))
            except StorageError as error:
                raise ConfigError(f"--workdir: {error}") from error

        on_first_process(lock)
        check_shared(workdir)
        yield checks[0] if checks else lambda: None


def check_shared(directory: Path) -> None:
    """Checks that every process sees what process 0 writes into a directory, which exists.

    Raises:
        ConfigError: one does not; on all processes.
    """
    if jax.process_count() == 1:
        return
    sign = directory / decide(lambda: f".shared-{secrets.token_hex(8)}")
    on_first_process(lambda: write_text(sign, ""))
    try:
        wait_until_visible(sign)
    finally:
        if jax.process_index() == 0:
            sign.unlink(missing_ok=True)
