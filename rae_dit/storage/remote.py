"""Objects in buckets as paths."""

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, NamedTuple, Self

import fsspec
from etils import epath
from etils.epath.gpath import PosixGPath

from rae_dit.storage.errors import AccessError, StorageError, one_line, storage_failure

_NO_FAILURE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_REGISTERED: list[str] = []
_REGISTERING = threading.Lock()


class Status(NamedTuple):
    """What `os.stat_result` says of a file, as far as a bucket knows it."""

    st_size: int
    st_mtime_ns: int  # of the server's clock
    st_mode: int
    version: str  # changes whenever the object is written


def filesystem(scheme: str) -> Any:
    """Returns fsspec's file system for a scheme, with our patience and errors for gs://.

    fsspec's are not safe across a fork, so every process makes its own.
    """
    register(scheme)
    # epath asks for it with this option, and an instance more would be connections more.
    return fsspec.filesystem("gcs", finalize_on_close=True) if scheme == "gs" else _plain(scheme)


def register(scheme: str) -> None:
    """Makes ours the file system that Orbax, JAX's compile cache and TFDS get for gs://, too."""
    with _REGISTERING:
        if scheme == "gs" and not _REGISTERED:
            from rae_dit.storage.gcs import Buckets

            # epath, and with it Orbax, JAX and TFDS, asks for it by either name.
            for name in ("gcs", "gs"):
                fsspec.register_implementation(name, Buckets, clobber=True)
            _REGISTERED.append(scheme)


def _plain(scheme: str) -> Any:
    """Without a cache of listings: other processes write, too."""
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextmanager
def translated(path: object) -> Iterator[None]:
    """Turns failures of storage inside the block into a StorageError of one line."""
    try:
        yield
    except AccessError as error:
        raise StorageError(str(error)) from error  # which is no OSError
    except (StorageError, *_NO_FAILURE):
        raise
    except PermissionError as error:
        raise StorageError(f"{path}: access is denied ({one_line(error)})") from error
    except Exception as error:
        reason = storage_failure(error)
        if not reason and not isinstance(error, OSError):
            raise
        raise StorageError(
            f"{path}: got {type(error).__name__}: {reason or one_line(error)}; expected the "
            "storage to work; the same command continues"
        ) from error


class RemotePath(PosixGPath):
    """A path in a bucket with the methods of `pathlib.Path`.

    It differs from `epath.Path` in what those assume of a disk: directories need not be made,
    paths are absolute as they are, nothing is appended to, a file is read by one request, and a
    failing network is a StorageError and never a missing file.
    """

    @property
    def fs(self) -> Any:
        """The file system of fsspec."""
        return filesystem(str(self).partition("://")[0])

    def translated(self) -> AbstractContextManager[None]:
        """Turns failures of storage inside a block into a StorageError of one line."""
        return translated(self)

    @property
    def _backend(self) -> Any:
        self.fs  # noqa: B018 (registers ours before epath asks for one)
        return epath.backend.fsspec_backend

    def resolve(self, strict: bool = False) -> Self:
        """Returns the path itself."""
        return self

    def absolute(self) -> Self:
        """Returns the path itself."""
        return self

    def expanduser(self) -> Self:
        """Returns the path itself."""
        return self

    def mkdir(self, *arguments: Any, **options: Any) -> None:
        """Does nothing: a directory is there when an object is below it."""

    def exists(self) -> bool:
        """Tells whether an object of that name, or one below it, exists."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Tells whether an object of that name exists."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Tells whether an object is below this path; if it was listed, as the listing said."""
        return (self.__dict__.get("listed") or self._kind()) == "directory"

    def stat(self) -> Any:
        """Asks for size, time and version of the object; raises FileNotFoundError."""
        info = self.info()
        is_directory = info["type"] == "directory"
        time = info.get("mtime") or info.get("LastModified")
        version = info.get("generation") or info.get("ETag") or info.get("blob_id") or ""
        return Status(
            int(info.get("size") or 0),
            int(time.timestamp() * 1e9) if time is not None else 0,
            stat.S_IFDIR if is_directory else stat.S_IFREG,
            str(version),
        )

    def info(self) -> dict[str, Any]:
        """Asks fsspec for all that it knows about the object; raises FileNotFoundError."""
        with translated(self):
            found: dict[str, Any] = self.fs.info(str(self))
            return found

    def _kind(self) -> str | None:
        try:
            return str(self.info()["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def iterdir(self) -> Iterator[Self]:
        """Lists what is directly below, sorted by name; nothing if there is no such directory.

        One that was made, and that nothing was written into yet, is not there in a bucket.
        """
        try:
            with translated(self):
                found = self.fs.ls(str(self), detail=True)
        except FileNotFoundError:
            return iter(())
        own = str(self).partition("://")[2].rstrip("/")
        kinds = {str(entry["name"]).rstrip("/"): entry["type"] for entry in found}
        children = []
        for name in sorted(kinds.keys() - {own}):
            child = self / name.rpartition("/")[2]
            child.__dict__["listed"] = kinds[name]  # or `is_dir` would be a request for each
            children.append(child)
        return iter(children)

    def glob(self, pattern: str) -> Iterator[Self]:
        """Finds what matches a pattern below, sorted by name."""
        with translated(self):
            found = self.fs.glob(f"{self}/{pattern}")
        scheme = str(self).partition("://")[0]
        return iter([type(self)(f"{scheme}://{name}") for name in sorted(found)])

    def read_bytes(self) -> bytes:
        """Reads the object by one request."""
        return self.read_range(None, None)

    def read_range(self, start: int | None, end: int | None) -> bytes:
        """Reads bytes start..end-1 by one request."""
        with translated(self):
            content: bytes = self.fs.cat_file(str(self), start=start, end=end)
            return content

    def read_text(self, encoding: str | None = None) -> str:
        """Reads UTF-8."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: bytes) -> int:
        """Writes the object: the whole of it appears at once, or nothing."""
        with translated(self):
            self.fs.pipe_file(str(self), bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None) -> int:
        """Writes UTF-8, as `write_bytes`."""
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def write_if(self, data: bytes, generation: str) -> str | None:
        """Writes the object if it is of a generation now ("0": if there is none); gs:// only.

        Returns:
            Its new generation; None if it is of another.
        """
        with translated(self):
            try:
                written: str = self.fs.pipe_file_if(str(self), data, generation)
            except FileExistsError:
                return None
        return written

    def put(self, file: str | os.PathLike[str]) -> None:
        """Writes a local file's content, as `write_bytes`."""
        with translated(self):
            self.fs.put_file(os.fspath(file), str(self))

    def open(self, mode: str = "r", **options: Any) -> Any:
        """Opens for reading; raises ValueError for other modes, see `files.replacing`."""
        if mode not in ("r", "rb", "rt"):
            raise ValueError(f"{self}: got mode {mode!r}; expected 'r' or 'rb': objects are whole")
        with translated(self):
            file: IO[bytes] = self.fs.open(
                str(self), "rb", block_size=2**20, cache_type="readahead"
            )
        return file if mode == "rb" else io.TextIOWrapper(file, encoding="utf-8")

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object."""
        self._delete(lambda: self.fs.rm_file(str(self)), missing_ok)

    def rmtree(self, missing_ok: bool = False) -> None:
        """Deletes all objects below."""
        self._delete(lambda: self.fs.rm(str(self), recursive=True), missing_ok)

    def _delete(self, delete: Callable[[], object], missing_ok: bool) -> None:
        try:
            with translated(self):
                delete()
        except FileNotFoundError:
            if not missing_ok:
                raise
