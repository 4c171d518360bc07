"""Reading of files, local or in a bucket: parts, whole local copies, sizes."""

import contextlib
import fnmatch
import glob
import hashlib
import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from rae_dit.storage.errors import StorageError
from rae_dit.storage.places import is_url, place

log = logging.getLogger(__name__)


def read_range(path: Path, start: int, size: int) -> bytes:
    """Reads `size` bytes from `start` on; one request if it is in a bucket."""
    if is_url(path):
        remote: Any = path
        content: bytes = remote.read_range(start, start + size)
        return content
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def matches(patterns: list[str]) -> dict[str, list[Path]]:
    """Finds the paths that match each pattern, with `*`, `?` and `[...]`, sorted by name."""
    if not any(is_url(pattern) for pattern in patterns):
        return {pattern: [Path(name) for name in glob.glob(pattern)] for pattern in patterns}
    found: dict[str, list[Path]] = {}
    listed: dict[str, list[Path]] = {}
    for pattern in patterns:
        parent, _, name = pattern.rpartition("/")
        if glob.has_magic(parent):
            bucket, _, below = pattern.partition("://")[2].partition("/")
            root = place(f"{pattern.partition('://')[0]}://{bucket}")
            found[pattern] = list(root.glob(below))
            continue
        if parent not in listed:  # once for all of NAME-{0000..0146}
            with contextlib.suppress(FileNotFoundError):
                listed[parent] = list(place(parent).iterdir())
        siblings = listed.setdefault(parent, [])
        found[pattern] = [path for path in siblings if fnmatch.fnmatchcase(path.name, name)]
    return found


def open_binary(path: Path) -> BinaryIO:
    """Opens for reading; of an object in a bucket blocks of 1 MB are read ahead."""
    file: BinaryIO = path.open("rb")
    return file


def paths_below(directory: Path) -> list[str]:
    """Lists the objects below a directory in a bucket, however deep, by one listing.

    Returns:
        Paths relative to the directory, sorted.

    Raises:
        StorageError: storage cannot be reached.
    """
    from rae_dit.storage.remote import translated

    remote: Any = directory
    with translated(directory):
        found = remote.fs.find(str(directory))
    start = len(str(directory).partition("://")[2].rstrip("/")) + 1
    return sorted(name[start:] for name in found if len(name) > start)


def local_copy(path: str | os.PathLike[str]) -> Path:
    """Returns a local path with the content of a path, for readers of other packages.

    A local path is returned as it is. An object, or all objects below a directory, are downloaded
    once into the user's cache; what was written again since is another version and is downloaded
    again.

    Args:
        path: of a file or a directory, local or a URL.

    Returns:
        The local path; where nothing is, the path that was given, so that a reader says so.

    Raises:
        StorageError: it cannot be read.
    """
    remote: Any = place(path)
    if not is_url(path):
        return Path(remote)
    is_file = remote.is_file()
    if is_file:
        names = {remote.name: remote}
    else:
        names = {name: remote / name for name in paths_below(remote)}
        if not names:
            found: Path = remote
            return found
    versions = {name: tuple(file.stat()) for name, file in names.items()}
    key = hashlib.sha256(json.dumps([str(path), versions], sort_keys=True).encode()).hexdigest()
    target = cache_directory() / key[:32]
    if not target.exists():
        _download(names, sum(status[0] for status in versions.values()), target)
    return target / remote.name if is_file else target


def _download(files: dict[str, Any], size: int, target: Path) -> None:
    """Downloads objects into a directory that gets its name when all are there."""
    from rae_dit.storage.remote import translated

    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise StorageError(
            f"{target.parent}: got {free / 1e9:.1f} GB of free space; expected {size / 1e9:.1f} GB "
            "for a copy; XDG_CACHE_HOME names another directory"
        )
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        for name, file in files.items():
            log.info("downloading %s", file)
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with translated(file):
                file.fs.get_file(str(file), str(temporary / name))
        try:
            temporary.rename(target)
        except OSError:  # another process was faster
            if not target.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_directory() -> Path:
    """Returns the directory of copies, which may be deleted whenever nothing runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "rae_dit" / "objects"
