"""Errors of third-party files: one line for every way in which a file can be damaged."""

import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIT_LFS = b"version https://git-lfs.github.com/spec/"
GIT_LFS_BYTES = 1024  # a pointer is never larger


class WeightsError(ValueError):
    """A file of weights that cannot be read, or does not fit the model."""


# What zipfile, zlib, numpy, json, pickle and the file system raise on bytes that are not theirs.
# ValueError covers UnicodeDecodeError and JSONDecodeError; RuntimeError, which zipfile raises on
# encrypted entries, covers RecursionError and NotImplementedError.
DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(OSError, EOFError, RuntimeError, MemoryError, SyntaxError),
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns whatever is raised while a third-party file is read into one line that names the file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: anything else was raised.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except WeightsError as error:
        if str(path) in str(error):
            raise
        raise WeightsError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged, or is not of the kind that it seems ({brief(error)}): "
            "fetch it again."
        ) from error


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
            f"{path} is a Git LFS pointer, not the file itself; run 'git lfs pull' in its "
            "repository, or fetch it with 'hf download'."
        )
