"""Reader of one directory per class, like torchvision's ImageFolder."""

import hashlib
import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rae_dit.data.files import Listing, PackedStrings, SourceError, sizes_of
from rae_dit.data.images import SUFFIXES
from rae_dit.data.object_folder import by_class, images_among
from rae_dit.data.shards import directory, found_in, is_number, kind_of, left_out, sorted_as_strings
from rae_dit.storage.places import is_url
from rae_dit.storage.reading import paths_below

log = logging.getLogger(__name__)

_SUFFIXES = tuple(suffix.encode() for suffix in SUFFIXES)
# What was read before the other endings and the directories below were.
_SUFFIXES_BEFORE = (b".jpg", b".jpeg", b".png", b".webp", b".bmp")
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"}
_REPORT_EVERY = 100_000
_COMPARED = 64  # images of which other hosts compare the size


@dataclass(frozen=True, eq=False)
class Folder:
    """The reader of `open_folder`: stores names and opens files on access.

    Attributes:
        root: directory of the classes.
        classes: names of their directories; the place is the label.
        files: names of all files, class by class, relative to the directory of the class.
        first: int64 [classes + 1], number of the first file of each class, then of all files.
        fingerprint: hash of the names.
        listing: what was found.
        directories: all that were listed below the root, relative to it.
    """

    root: Path
    classes: tuple[str, ...]
    files: PackedStrings
    first: np.ndarray
    fingerprint: str
    listing: Listing
    directories: tuple[bytes, ...] = ()

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


def open_folder(path: str, num_classes: int, *, numeric_classes: bool = False) -> Folder:
    """Lists DIRECTORY/CLASS/**/IMAGE; the sorted names of the classes are the labels 0, 1, ...

    Images are files with an ending of `images.SUFFIXES`, in capitals too, in the directory of a
    class or any directory below it; symbolic links are followed. Other files and all names that
    start with a dot are left out and counted. Only names are read.

    Args:
        path: the directory of the classes, for example ".../imagenet/train".
        num_classes: how many there must be; one more or less would shift all labels.
        numeric_classes: the names of the classes are whole numbers, sorted as such: 2 before 10.

    Returns:
        The reader; within a class, files sorted by their directory and then by name, which is the
        order of torchvision's ImageFolder.

    Raises:
        SourceError: there is no such directory, the number of classes is another, a class has no
            image, one is no number, or all are splits of a data set.
    """
    expected = "a directory with one directory of images per class"
    root = directory(path, expected)
    classes = class_directories(root, numeric_classes=numeric_classes)
    if len(classes) != num_classes:
        raise SourceError(
            f"got {path!r}, which holds {found_in(root)}; expected {expected}, "
            f"and data.num_classes = {num_classes} of them"
        )
    # In a bucket one listing of everything, in place of one for each class.
    below = by_class(paths_below(root)) if is_url(root) else {}
    names: list[bytes] = []
    first = [0]
    directories: list[bytes] = []
    digest = hashlib.sha256()
    before, counts = hashlib.sha256(), []
    others = Counter(kind_of(p.name) for p in root.iterdir() if p.name not in {*classes})
    for label in classes:
        if is_url(root):
            images = images_among(below.get(label, []), others)
        else:
            images, deeper = _images(root / label, others)
            directories += [os.path.join(os.fsencode(label), path) for path in deeper]
        if not images:
            raise SourceError(
                f"got {path!r}, where the class {label!r} holds {found_in(root / label)}; "
                f"expected images in it ({', '.join(f'*{s}' for s in SUFFIXES[:5])}, ...)"
            )
        if len(names) // _REPORT_EVERY < (len(names) + len(images)) // _REPORT_EVERY:
            log.info("listing %s: %d images so far", root, len(names) + len(images))
        digest.update(b"\0".join([os.fsencode(label), *images, b"\0"]))
        known = [i for i in images if b"/" not in i and i.lower().endswith(_SUFFIXES_BEFORE)]
        before.update(b"\0".join([os.fsencode(label), *known, b"\0"]))
        counts.append(len(known))
        names += images
        first.append(len(names))
    numbers = sorted_as_strings(classes)
    hint = (f"{numbers}; data.numeric_classes=True sorts them as numbers",) if numbers else ()
    starts = np.array(first, np.int64)
    return Folder(
        root=root,
        classes=classes,
        files=PackedStrings(names),
        first=starts,
        fingerprint=f"folder/{len(names)}/{digest.hexdigest()[:12]}",
        listing=Listing(
            len(names),
            classes=classes,
            remarks=(*left_out(others), *hint),
            sizes=sizes_of_some(root, classes, names, starts),
            before=_before(len(names), counts, before.hexdigest()[:12]),
        ),
        directories=tuple(directories),
    )


def sizes_of_some(
    root: Path, classes: tuple[str, ...], names: list[bytes] | PackedStrings, first: np.ndarray
) -> tuple[tuple[str, int], ...]:
    """Returns `Listing.sizes` of some of the images that are there: a link may lead nowhere."""
    if is_url(root):
        return ()
    places = np.unique(np.linspace(0, len(names) - 1, _COMPARED).astype(int))
    labels = np.searchsorted(first, places, side="right") - 1
    paths = [
        root / classes[label] / os.fsdecode(names[place])
        for place, label in zip(places, labels, strict=True)
    ]
    return sizes_of(path for path in paths if path.exists())


def _before(total: int, counts: list[int], digest: str) -> tuple[str, str] | None:
    """Returns `Listing.before`: fewer endings, and no directories inside those of classes."""
    count = sum(counts)
    if count == total or 0 in counts:
        return None
    more = f"{total - count:,} images in directories below those of the classes, or with endings"
    endings = " ".join(f"*{suffix.decode()}" for suffix in _SUFFIXES_BEFORE)
    return f"folder/{count}/{digest}", f"{more} other than {endings}"


def class_directories(root: Path, *, numeric_classes: bool) -> tuple[str, ...]:
    """Lists the directories of the classes in the order of their labels.

    Raises:
        SourceError: they are the splits of a data set; or should be numbers, and one is not.
    """
    entries = root.iterdir() if is_url(root) else _scan(root)
    classes = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if classes and all(name.lower() in _SPLITS for name in classes):
        chosen = next((name for name in classes if name.lower().startswith("train")), classes[0])
        raise SourceError(
            f"got {str(root)!r}, whose directories are splits ({', '.join(classes)}); expected one "
            f"directory of images per class, such as those in {str(root / chosen)!r}"
        )
    if not numeric_classes:
        return tuple(classes)
    if names := [name for name in classes if not is_number(name)]:
        raise SourceError(
            f"got {str(root)!r} with the class {names[0]!r}; expected whole numbers because "
            "data.numeric_classes is True"
        )
    return tuple(sorted(classes, key=int))


def _scan(root: Path) -> list[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        return list(entries)


def _images(folder: Path, others: Counter[str]) -> tuple[list[bytes], list[bytes]]:
    """Lists the images below a directory and all directories there, relative to it.

    All else is counted in `others`.
    """
    # Bytes, because a million of str would cost several times the memory.
    top = os.fsencode(folder)
    found: list[tuple[bytes, list[bytes]]] = []
    # Of each directory still to be listed: its path below the top, and the real paths above it.
    waiting: list[tuple[bytes, tuple[bytes, ...]]] = [(b"", (os.path.realpath(top),))]
    while waiting:
        below, above = waiting.pop()
        images = []
        with os.scandir(os.path.join(top, below)) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.name.startswith(b"."):
                    others["hidden"] += 1
                elif not entry.is_dir():
                    if entry.name.lower().endswith(_SUFFIXES):
                        images.append(path)
                    else:
                        others[kind_of(os.fsdecode(entry.name))] += 1
                elif not entry.is_symlink():
                    waiting.append((path, above))
                elif _leads_back(real := os.path.realpath(entry.path), above):
                    others["link to a directory above it"] += 1
                else:
                    waiting.append((path, (*above, real)))
        found.append((below, sorted(images)))
    found.sort()
    return [image for _, images in found for image in images], [below for below, _ in found]


def _leads_back(real: bytes, above: tuple[bytes, ...]) -> bool:
    """Tells whether a real path is one of those above, or holds one."""
    return any(path == real or path.startswith(real + b"/") for path in above)
