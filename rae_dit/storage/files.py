"""Atomic writes of local files."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside the target; moves it there when the block succeeds.

    A crash of the program or the machine leaves the old file or the new one: the content is on
    disk before the name points to it. Missing directories are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def first_unwritable(directory: Path) -> Path | None:
    """Finds the path that prevents writing to a directory, or creating it.

    That is the directory or its nearest existing parent, if it is not a writable directory; None
    if it is.
    """
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return None if there.is_dir() and os.access(there, os.W_OK | os.X_OK) else there


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, atomically."""
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
