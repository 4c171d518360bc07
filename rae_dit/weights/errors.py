"""Errors of third-party files: one line for every way in which a file can be damaged.

Only the calls that parse a file's bytes are inside `parsing` or `reading`: what this project's own
code raises elsewhere is a bug, and keeps its traceback.
"""

import errno
import pickle
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rae_dit.storage.places import place

# In messages that say what to do.
ADVICE = re.compile("expected|fetch|save|convert|give ", re.IGNORECASE)
GIT_LFS = b"version https://git-lfs.github.com/spec/"
GIT_LFS_BYTES = 1024  # a pointer is never larger


class WeightsError(ValueError):
    """A file of weights that cannot be read, or does not fit the model."""


# What zipfile, zlib, numpy, json and pickle raise on bytes that are not theirs.
# ValueError covers UnicodeDecodeError and JSONDecodeError; RuntimeError, which zipfile raises on
# encrypted entries, covers RecursionError and NotImplementedError.
DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(EOFError, RuntimeError, SyntaxError),
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@contextmanager
def parsing(what: str | Path = "It") -> Iterator[None]:
    """Turns whatever is raised while foreign bytes are parsed into one line.

    Args:
        what: the file; "It" inside `naming`, which names it.

    Raises:
        OSError: the file cannot be read.
        MemoryError: it does not fit into memory.
        WeightsError: anything else was raised.
    """
    try:
        yield
    except WeightsError:
        raise
    except (*DAMAGE, OSError) as error:
        # A place before the start of the file is damage; all else is the disk's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise WeightsError(
            f"{what} is damaged, or is not of the kind that it seems ({brief(error)}): "
            "fetch it again."
        ) from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Names the file in errors of its reader, of the disk and of memory; each is one line.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: one of the others was raised.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except WeightsError as error:
        if (text := complete(path, str(error))) == str(error):
            raise
        raise WeightsError(text) from error
    except PermissionError as error:
        raise WeightsError(
            f"{path}: got no permission to read it; expected a file that this user may read"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"{path}: got {error.strerror or error}; expected a file that can be read; is the "
            "disk there?"
        ) from error
    except MemoryError as error:
        raise WeightsError(
            f"{path}: got no memory for its {path_size(path)}; expected more free memory"
        ) from error


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Parses the bytes of a file inside: `naming` and `parsing` in one.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: anything else was raised.
    """
    with naming(path), parsing(path):
        yield


def complete(path: str | Path, text: str) -> str:
    """Completes a message of what is inside a file: which file, and what to do."""
    start = f"{path} " if text.startswith("It ") else f"{path}: "
    named = text if str(path) in text else start + text.removeprefix("It ")
    return (
        named if ADVICE.search(text) else f"{named.rstrip('.')}; expected another: fetch it again"
    )


def path_size(path: str | Path) -> str:
    """Describes the size of a file, where it can be told."""
    try:
        return f"{place(path).stat().st_size:,} bytes"
    except OSError:
        return "numbers"


def brief(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message, cut."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines[0] else type(error).__name__


def refuse_pointer(path: Path) -> None:
    """Refuses a Git LFS pointer: the few lines that git leaves where a large file should be.

    Raises:
        WeightsError: the file is one.
    """
    with path.open("rb") as file:
        start = file.read(len(GIT_LFS))
    if start == GIT_LFS and path.stat().st_size <= GIT_LFS_BYTES:
        raise WeightsError(
            f"{path}: got a Git LFS pointer; expected the file itself: run 'git lfs pull' in its "
            "repository, or fetch it with 'hf download'"
        )
