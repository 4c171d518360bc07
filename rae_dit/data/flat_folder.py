"""Reader of unlabeled images: one file, or all in one directory; every label is 0."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rae_dit.data.files import SourceError
from rae_dit.data.folder import IMAGE_SUFFIXES

_SUFFIXES = tuple(suffix.decode() for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True, eq=False)
class Pictures:
    """See `open_pictures`; a reader as data/files.py has them.

    Attributes:
        paths: in the order of names.
        fingerprint: hash of the names.
    """

    paths: tuple[Path, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Files`."""
        return self.paths[index].read_bytes(), 0

    def name(self, index: int) -> str:
        """See `Files`."""
        return str(self.paths[index])


def open_pictures(path: str | Path) -> Pictures:
    """Finds a picture, or those directly in a directory.

    Pictures are *.jpg, *.jpeg, *.png, *.webp and *.bmp, in capitals too; names that start with a
    dot are passed over.

    Args:
        path: of the picture or the directory.

    Returns:
        The reader.

    Raises:
        SourceError: there is no such path, or no picture in it; one line.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if not p.name.startswith(".") and _is_picture(p))
    else:
        found = [path] if path.is_file() and _is_picture(path) else []
    if not found:
        kinds = " ".join(f"*{suffix}" for suffix in _SUFFIXES)
        what = "which holds none" if path.is_dir() else "which is none"
        what = what if path.exists() else "which does not exist"
        raise SourceError(
            f"got {str(path)!r}, {what}; expected a picture or a directory of {kinds}"
        )
    digest = hashlib.sha256("\0".join(p.name for p in found).encode()).hexdigest()[:12]
    return Pictures(tuple(found), f"pictures/{len(found)}/{digest}")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES
