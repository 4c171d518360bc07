"""Reading .npz files of others: names and shapes of their arrays first, errors in one line."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rae_dit.data.files import SourceError
from rae_dit.weights.errors import DAMAGE, GIT_LFS
from rae_dit.weights.npz_file import Header, read_header

_SIGNATURES = {
    b"\x80": "a pickle, as torch wrote its files before 1.6",
    b"\x93NUMPY": "a single array (.npy)",
    GIT_LFS: "a Git LFS pointer; 'git lfs pull' gets the file",
}


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turns errors of numpy and zipfile inside the block into a SourceError of one line."""
    try:
        yield
    except SourceError:
        raise
    except (*DAMAGE, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"got {str(path)!r}, which cannot be used ({reason}); expected a sound .npz"
        ) from error


def read_headers(path: Path, expected: str) -> dict[str, Header]:
    """Reads names, shapes and types of the arrays; reads no array.

    Args:
        path: of the file.
        expected: what it should be, for the error.

    Raises:
        SourceError: there is no such file, it is another kind of file (a torch file, for example),
            or it is damaged or cut off.
    """
    if not path.is_file():
        raise SourceError(f"got {str(path)!r}, which does not exist; expected {expected}")
    with one_line(path):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                start = file.read(64)
            kinds = [kind for sign, kind in _SIGNATURES.items() if start.startswith(sign)]
            what = f" but {kinds[0]}" if kinds else ""
            raise SourceError(f"got {str(path)!r}, which is not an .npz{what}; expected {expected}")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("data.pkl") for name in names):
                raise SourceError(f"got {str(path)!r}, which is a torch file; expected {expected}")
            arrays = [name for name in names if name.endswith(".npy")]
            if not arrays:
                shown = ", ".join(names[:5]) or "nothing"
                raise SourceError(
                    f"got {str(path)!r}, a zip of {shown[:80]} without arrays; expected {expected}"
                )
            return {name.removesuffix(".npy"): _header(archive, name, path) for name in arrays}


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> Header:
    """Reads the header of an array and compares it with the length of what follows.

    Raises:
        SourceError: the array is not as long as its header says.
    """
    with archive.open(name) as file:
        header = read_header(file)
        head = file.tell()
    count = 1
    for length in header.shape:
        count *= length
    found, wanted = archive.getinfo(name).file_size - head, count * header.dtype.itemsize
    if not header.dtype.hasobject and found != wanted:  # objects have no length of their own
        raise SourceError(
            f"got {str(path)!r}, where {name} holds {found:,} bytes; expected {wanted:,} for "
            f"{header.dtype} {list(header.shape)}"
        )
    return header
