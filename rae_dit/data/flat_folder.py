"""Reader of unlabeled images: one file, or all in one directory; every label is 0."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rae_dit.data.files import Listing, SourceError
from rae_dit.data.images import SUFFIXES
from rae_dit.data.shards import kind_of, left_out
from rae_dit.storage.places import place


@dataclass(frozen=True, eq=False)
class Pictures:
    """See `open_pictures`; a reader as data/files.py has them.

    Attributes:
        paths: in the order of names.
        fingerprint: hash of the names.
        listing: what was found.
    """

    paths: tuple[Path, ...]
    fingerprint: str
    listing: Listing

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

    Pictures are files with an ending of `images.SUFFIXES`, in capitals too; all else in the
    directory is left out and counted.

    Args:
        path: of the picture or the directory.

    Returns:
        The reader.

    Raises:
        SourceError: there is no such path, or no picture in it; one line.
    """
    path = place(path)
    entries = list(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    found = sorted(p for p in entries if not p.name.startswith(".") and _is_picture(p))
    if not found:
        kinds = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        what = "which holds none" if path.is_dir() else "which is none"
        what = what if path.exists() else "which does not exist"
        raise SourceError(
            f"got {str(path)!r}, {what}; expected a picture or a directory of {kinds}"
        )
    others = Counter(
        "directory" if p.is_dir() else kind_of(p.name) for p in entries if p not in {*found}
    )
    digest = hashlib.sha256("\0".join(p.name for p in found).encode()).hexdigest()[:12]
    listing = Listing(len(found), remarks=left_out(others))
    return Pictures(tuple(found), f"pictures/{len(found)}/{digest}", listing)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()
