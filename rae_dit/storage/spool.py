"""Files that grow, of a run in a bucket: written on a local disk and uploaded as a whole.

Objects cannot be appended to. So metrics and TensorBoard's events are appended to local files, and
a thread puts the newest content into the bucket at times.
"""

import contextlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import upload
from rae_dit.storage.lease import HeldError
from rae_dit.storage.places import is_url

log = logging.getLogger(__name__)

UPLOAD_EVERY = 30.0  # seconds; GCS takes about one put a second to an object
_LARGE = 64 * 2**20  # bytes, above which uploads become rarer


class Spool(contextlib.AbstractContextManager["Spool"]):
    """A local directory whose files are uploaded to a directory in a bucket.

    For a local directory it is that directory, and nothing is uploaded.

    Attributes:
        directory: where the files are to be written.
    """

    def __init__(
        self,
        target: Path,
        *,
        check: Callable[[], None] = lambda: None,
        every: float = UPLOAD_EVERY,
    ) -> None:
        """Starts a thread if there is something to upload to.

        Args:
            target: directory of the run, local or in a bucket.
            check: called before each upload: makes sure that no other run writes there
                (`Lease.check`).
            every: seconds between uploads.
        """
        self._target = target
        self._check = check
        self._every = every
        self._uploaded: dict[Path, tuple[int, int]] = {}  # size and time of what was uploaded last
        self._uploading = threading.Lock()
        self._closing = threading.Event()
        self._abandoned = False
        self._thread: threading.Thread | None = None
        self.directory = target
        if is_url(target):
            self.directory = Path(tempfile.mkdtemp(prefix="rae_dit-spool-"))
            self._thread = threading.Thread(target=self._upload_at_times, daemon=True)
            self._thread.start()

    def fetch(self, name: str) -> None:
        """Downloads a file of the run, if there is one and it is in a bucket."""
        if self._thread is not None:
            with contextlib.suppress(FileNotFoundError):
                (self.directory / name).write_bytes((self._target / name).read_bytes())

    def upload(self) -> None:
        """Uploads the files that have changed; returns when they are there.

        Raises:
            HeldError: another run writes to the directory now; nothing is uploaded any more.
            StorageError: one could not be uploaded.
        """
        if self._thread is None:
            return
        with self._uploading:
            try:
                self._check()
            except HeldError:
                self._abandon()
                raise
            for file in sorted(self.directory.rglob("*")):
                # Hidden files are being replaced.
                if not file.is_file() or file.name.startswith("."):
                    continue
                status = file.stat()
                if self._uploaded.get(file) != (status.st_size, status.st_mtime_ns):
                    upload(file, self._target / file.relative_to(self.directory).as_posix())
                    self._uploaded[file] = (status.st_size, status.st_mtime_ns)

    def _upload_at_times(self) -> None:
        while not self._closing.wait(self._every * max(1.0, self._size() / _LARGE)):
            try:
                self.upload()
            except HeldError:
                return
            except (StorageError, OSError) as error:
                log.warning("not uploaded for now, and tried again: %s", error)

    def _size(self) -> int:
        return sum(size for size, _ in self._uploaded.values())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes; an exception of the block propagates."""
        self.close()

    def _abandon(self) -> None:
        if not self._abandoned:
            self._abandoned = True
            log.warning(
                "%s is another run's now; what was not uploaded is in %s",
                self._target,
                self.directory,
            )

    def close(self) -> None:
        """Uploads what is left and deletes the local files.

        If the directory is another run's now, a warning names the local files, which stay.

        Raises:
            StorageError: something could not be uploaded; the message names the local files.
        """
        if self._thread is None or self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        try:
            self.upload()
        except HeldError:
            return
        except (StorageError, OSError) as error:
            raise StorageError(f"{error}; what was not uploaded is in {self.directory}") from error
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self
