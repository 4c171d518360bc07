"""Writing files whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside the target to write to; moves it there when the block ends well.

    So a crash, of the program or the machine, leaves the old file or the new one: the new content
    is on the disk before the name points to it. Missing folders are made.
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
    """What keeps a directory from being written to, or from being made.

    It or the nearest path above it that exists, where that is no directory that can be written;
    None where nothing stands in the way.
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
    """Writes JSON with two spaces of indentation, atomically; NaN is refused.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
