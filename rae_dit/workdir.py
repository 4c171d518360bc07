"""The directory of a run: finding it, its config, and one run at a time in it."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock
import ml_collections

from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.config.check import invalid_value

log = logging.getLogger(__name__)

WAIT_SECONDS = 30.0


def find_run(path: str | Path) -> Path | None:
    """The workdir that `path` is, or whose checkpoints or single step it is; None for neither."""
    path = Path(path).absolute()
    if not path.is_dir():
        return None
    for directory in (path, path.parent, path.parent.parent):
        if (directory / "checkpoints").is_dir() and (directory / "config.json").is_file():
            return directory
    return None


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has saved anything, sound or not."""
    return any((workdir / "checkpoints").glob("[0-9]*"))


def newest_step(workdir: Path) -> int | None:
    """The newest step that a run has saved; None for none."""
    names = (path.name for path in (workdir / "checkpoints").glob("[0-9]*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


def read_config(workdir: Path) -> Config:
    """The config of a run, as its config.json has it.

    Raises:
        ConfigError: it is not JSON, or of another version of this project.
    """
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text())
        return from_config_dict(ml_collections.ConfigDict(values))
    except (json.JSONDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not a config of this version: {error}") from error


@contextlib.contextmanager
def workdir_lock(workdir: Path, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
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
        raise invalid_value("--workdir", str(workdir), expected) from error
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s): see that one run at a time uses it", workdir, error)
    try:
        yield
    finally:
        lock.release()
