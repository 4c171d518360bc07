"""A lease on a directory in a bucket, in place of a lock.

`.lock` is an object that its holder writes again every 30 s, on condition that it is still the
generation that it wrote before. One that was not renewed for 150 s by the server's clock may be
taken over, again on condition of its generation, so that one of two wins. Clocks of hosts are not
compared.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rae_dit.storage.errors import StorageError

log = logging.getLogger(__name__)

RENEW_EVERY = 30.0  # seconds
EXPIRES_AFTER = 150.0  # seconds without renewal
NAME = ".lock"


class HeldError(StorageError):
    """Another run holds the lease."""


class _Found(NamedTuple):
    generation: str
    holder: dict[str, Any]
    age: float  # seconds since it was renewed, by the server's clock


class Lease(contextlib.AbstractContextManager["Lease"]):
    """A lease, taken on entry and given back on exit."""

    def __init__(
        self, directory: Path, *, renew: float = RENEW_EVERY, expire: float = EXPIRES_AFTER
    ) -> None:
        """Asks nothing yet.

        Args:
            directory: in a bucket.
            renew: seconds between renewals.
            expire: seconds without a renewal until others may take it.
        """
        self._path: Any = directory / NAME
        self._renew_every, self._expire = renew, expire
        self._own: dict[str, Any] = {
            "run": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": _process(os.getpid()),
        }
        self._generation: str | None = None
        self._lost = ""
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew_at_times, daemon=True)

    def __enter__(self) -> Self:
        """Takes the lease.

        Raises:
            HeldError: another run renews it.
            StorageError: storage cannot be used.
        """
        first: _Found | None = None
        while not self._write("0"):
            found = self._find()
            if found is None:
                continue
            if found.holder.get("run") == self._own["run"]:  # our answer was lost on its way
                self._generation = found.generation
                break
            if first is not None and found.generation != first.generation:
                raise HeldError(self._describe(found))
            if (found.age > self._expire or _is_dead(found.holder)) and self._write(
                found.generation
            ):
                log.info("%s: took over from a run that ended: %s", self._path, _who(found.holder))
                break
            if first is None:
                first = found
                log.info("%s; waiting for it to end or to renew", self._describe(found))
            time.sleep(min(2.0, self._renew_every / 10))
        self._thread.start()
        return self

    def check(self) -> None:
        """Renews the lease now.

        Raises:
            HeldError: another run took it.
            StorageError: storage cannot be used.
        """
        if not self._lost and not self._renew():
            found = self._find()
            self._lost = "it was deleted" if found is None else f"by {_who(found.holder)}"
        if self._lost:
            raise HeldError(
                f"{self._path}: got taken over ({self._lost}); expected to be the only run there; "
                "nothing was saved since"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives the lease back; a failure to do so is a warning, because it expires by itself."""
        self._ending.set()
        self._thread.join()
        if self._lost:
            return
        try:
            found = self._find()
            if found is not None and found.holder.get("run") == self._own["run"]:
                self._path.unlink(missing_ok=True)
        except StorageError as problem:
            log.warning("the lease could not be given back, and expires: %s", problem)

    def _renew_at_times(self) -> None:
        while not self._ending.wait(self._renew_every):
            try:
                self.check()
            except HeldError as error:
                log.error("%s; this run stops before its next save", error)
                return
            except StorageError as error:
                log.warning("the lease is not renewed for now: %s", error)

    def _renew(self) -> bool:
        with self._writing:
            if self._write(self._generation or "0"):
                return True
            found = self._find()
            if found is None or found.holder.get("run") != self._own["run"]:
                return False
            self._generation = found.generation  # our answer was lost on its way
            return True

    def _write(self, generation: str) -> bool:
        """Writes the object if it is of this generation, "0" for none; tells whether it was."""
        written = self._path.write_if(
            json.dumps(self._own | {"time": time.strftime("%F %T %z")}).encode(), generation
        )
        if written is None:
            return False
        self._generation = written
        return True

    def _find(self) -> _Found | None:
        """Reads the lease and its age; None if there is none."""
        clock = self._path.with_name(f"{NAME}-clock-{self._own['run'][:12]}")
        try:
            info = self._path.info()
            holder = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            holder = {}
        # Another object written now has the server's present time.
        clock.write_bytes(b"")
        now = clock.info()["mtime"]
        clock.unlink(missing_ok=True)
        age = (now - info["mtime"]).total_seconds()
        return _Found(str(info["generation"]), holder if isinstance(holder, dict) else {}, age)

    def _describe(self, found: _Found) -> str:
        return (
            f"{self._path.parent}: got held by {_who(found.holder)}; expected a directory that no "
            f"other run holds; end that run, use another one, or, if it is gone, wait "
            f"{self._expire:.0f} s or delete {self._path}"
        )


def _who(holder: dict[str, Any]) -> str:
    host, pid, since = (holder.get(name, "?") for name in ("host", "pid", "time"))
    return f"process {pid} on {host}, renewed at {since} there"


def _process(pid: int) -> str | None:
    """Names a process of this machine for ever: boot, name space of processes, start, number.

    None if there is no such process, or this is no Linux.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return f"{boot} {space} {pid} {start}"


def _is_dead(holder: dict[str, Any]) -> bool:
    """Tells whether a holder was a process of this machine that has ended."""
    process, pid, own = holder.get("process"), holder.get("pid"), _process(os.getpid())
    if not isinstance(process, str) or not isinstance(pid, int) or own is None:
        return False
    if process.split()[:2] != own.split()[:2]:  # of another machine
        return False
    found = _process(pid)
    return found != process if found is not None else not _exists(pid)


def _exists(pid: int) -> bool:
    """Tells whether there is a process of this number, which /proc may hide from us."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
