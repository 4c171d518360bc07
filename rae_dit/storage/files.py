"""Atomic writes of files, local or in a bucket."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rae_dit.storage.errors import StorageError
from rae_dit.storage.places import COMMITTED, is_url, place


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary local path; its file becomes the target when the block succeeds.

    A crash of the program or the machine leaves the old file or the new one. On a disk the
    temporary file is beside the target: the content is on disk before the name points to it, and
    missing directories are created. For a bucket it is in the system's directory of temporary
    files, and is uploaded by one put, which appears as a whole.
    """
    if is_url(path):
        with tempfile.TemporaryDirectory(prefix="rae_dit-") as directory:
            temporary = Path(directory) / path.name
            yield temporary
            upload(temporary, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def upload(file: Path, path: Path) -> None:
    """Writes the content of a local file to a path in a bucket, by one put."""
    target: Any = place(path)
    target.put(file)


def upload_tree(directory: Path, path: Path) -> None:
    """Writes all files below a local directory below a path in a bucket."""
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            upload(file, path / file.relative_to(directory).as_posix())


def set_aside(step: Path, target: Path) -> None:
    """Moves the directory of a checkpoint, so that Orbax does not see it any more.

    In a bucket every object is copied, on the server, and deleted. The mark of a whole checkpoint
    goes first: if the program ends in between, what is left is an unfinished step, which Orbax
    ignores and clears when it saves that step again.
    """
    if not is_url(step):
        step.rename(target)
        return
    remote: Any = step
    (step / COMMITTED).unlink(missing_ok=True)
    with remote.translated():
        remote.fs.mv(str(step), str(target), recursive=True)


def check_room(file: Path, size: int) -> None:
    """Checks that a file of this size can be written; for what is made locally and then uploaded.

    Raises:
        StorageError: its disk has less room.
    """
    free = shutil.disk_usage(file.parent).free
    if free < size:
        raise StorageError(
            f"{file.parent}: got {free / 1e9:.1f} GB of free space; expected {size / 1e9:.1f} GB "
            f"for {file.name} before it is uploaded; TMPDIR names another directory"
        )


def first_unwritable(directory: Path) -> Path | None:
    """Finds the path that prevents writing to a directory, or creating it.

    That is the directory or its nearest existing parent, if it is not a writable directory; None
    if it is. In a bucket nothing is asked; `check_writable` does.
    """
    if is_url(directory):
        return None
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return None if there.is_dir() and os.access(there, os.W_OK | os.X_OK) else there


def check_writable(directory: Path) -> None:
    """Writes and deletes a small object below a directory in a bucket; a local one is passed over.

    Raises:
        StorageError: either cannot be done: no bucket, no credentials, no permission, no network.
    """
    if is_url(directory):
        probe = directory / f".rae_dit-probe-{uuid.uuid4().hex[:12]}"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, atomically."""
    if is_url(path):
        path.write_bytes(content)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with two spaces of indentation, atomically; rejects NaN.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
