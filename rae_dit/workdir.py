"""Run directories: finding one, reading its config, locking it.

What one process sees may be a minute old on another: callers `decide` where it matters to all.
"""

import contextlib
import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax
import ml_collections

from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.config.check import invalid_value
from rae_dit.config.compatibility import complete
from rae_dit.multihost import decide, on_first_process, wait_until_visible
from rae_dit.storage.files import write_text

log = logging.getLogger(__name__)

WAIT_SECONDS = 30.0
LISTINGS = "listings"  # directory where listings of the data are kept


def find_run(path: str | Path) -> Path | None:
    """Finds the workdir of a workdir, checkpoints directory or step directory; else None."""
    path = Path(path).absolute()
    if not path.is_dir():
        return None
    for directory in (path, path.parent, path.parent.parent):
        if (directory / "checkpoints").is_dir() and (directory / "config.json").is_file():
            return directory
    return None


def has_checkpoint(workdir: Path) -> bool:
    """Tells whether a run has saved a step, damaged or not."""
    return any((workdir / "checkpoints").glob("[0-9]*"))


def newest_step(workdir: Path) -> int | None:
    """Finds the newest saved step; None if there is none."""
    names = (path.name for path in (workdir / "checkpoints").glob("[0-9]*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


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
def workdir_lock(workdir: Path, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Locks a workdir, which is created if needed, for the duration of a `with` block.

    The system releases the lock when the process ends, in whatever way. A killed process may need
    a moment for that, hence the wait. A file system without locks only logs a warning.

    Args:
        workdir: the directory.
        wait_seconds: how long to wait for another run to end.

    Raises:
        ConfigError: another run holds the lock.
    """
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
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def lock_for_all(workdir: Path) -> Iterator[None]:
    """Locks a workdir on process 0, for all processes of a run.

    Raises:
        ConfigError: another run holds the lock, or a process does not see what process 0 writes
            there, as on a disk of its own: its part of a checkpoint would be lost. On all.
    """
    with contextlib.ExitStack() as stack:
        on_first_process(lambda: stack.enter_context(workdir_lock(workdir)))
        check_shared(workdir)
        yield


def check_shared(workdir: Path) -> None:
    """Checks that every process sees what process 0 writes into a workdir.

    Raises:
        ConfigError: one does not; on all processes.
    """
    if jax.process_count() == 1:
        return
    sign = workdir / decide(lambda: f".shared-{secrets.token_hex(8)}")
    on_first_process(lambda: write_text(sign, ""))
    try:
        wait_until_visible(sign)
    finally:
        if jax.process_index() == 0:
            sign.unlink(missing_ok=True)
