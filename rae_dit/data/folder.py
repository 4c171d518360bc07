"""Reader of one directory per class, like torchvision's ImageFolder."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rae_dit.data.files import PackedStrings, SourceError
from rae_dit.data.shards import directory, found_in

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (b".jpg", b".jpeg", b".png", b".webp", b".bmp")
_REPORT_EVERY = 100_000


@dataclass(frozen=True, eq=False)
class Folder:
    """The reader of `open_folder`: stores names and opens files on access.

    Attributes:
        root: directory of the classes.
        classes: names of their directories; the place is the label.
        files: names of all files, class by class.
        first: int64 [classes + 1], number of the first file of each class, then of all files.
        fingerprint: hash of the names.
    """

    root: Path
    classes: tuple[str, ...]
    files: PackedStrings
    first: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Files`."""
        return self._path(index).read_bytes(), self._label(index)

    def name(self, index: int) -> str:
        """See `Files`."""
        return str(self._path(index))

    def _label(self, index: int) -> int:
        return int(np.searchsorted(self.first, index, side="right")) - 1

    def _path(self, index: int) -> Path:
        return self.root / self.classes[self._label(index)] / os.fsdecode(self.files[index])


def open_folder(path: str, num_classes: int) -> Folder:
    """Lists DIRECTORY/CLASS/IMAGE; the sorted names of the classes are the labels 0, 1, ...

    Images are *.jpg, *.jpeg, *.png, *.webp and *.bmp, in capitals too; other files and all names
    that start with a dot are skipped. Only names are read.

    Args:
        path: the directory of the classes, for example ".../imagenet/train".
        num_classes: how many there must be; one more or less would shift all labels.

    Returns:
        The reader, files sorted by name within a class.

    Raises:
        SourceError: there is no such directory, the number of classes is another, or a class
            has no image.
    """
    expected = "a directory with one directory of images per class"
    root = directory(path, expected)
    with os.scandir(root) as entries:
        classes = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(classes) != num_classes:
        raise SourceError(
            f"got {path!r}, which holds {found_in(root)}; expected {expected}, "
            f"and data.num_classes = {num_classes} of them"
        )
    names: list[bytes] = []
    first = [0]
    digest = hashlib.sha256()
    for label in classes:
        images = _images(root / label)
        if not images:
            raise SourceError(
                f"got {path!r}, where the class {label!r} holds {found_in(root / label)}; "
                "expected *.jpg, *.jpeg, *.png, *.webp or *.bmp in it"
            )
        if len(names) // _REPORT_EVERY < (len(names) + len(images)) // _REPORT_EVERY:
            log.info("listing %s: %d images so far", root, len(names) + len(images))
        digest.update(b"\0".join([os.fsencode(label), *images, b"\0"]))
        names += images
        first.append(len(names))
    return Folder(
        root=root,
        classes=tuple(classes),
        files=PackedStrings(names),
        first=np.array(first, np.int64),
        fingerprint=f"folder/{len(names)}/{digest.hexdigest()[:12]}",
    )


def _images(folder: Path) -> list[bytes]:
    """Lists the images in a directory, sorted by name."""
    # Bytes, because a million of str would cost several times the memory.
    with os.scandir(os.fsencode(folder)) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(b".")
        )
