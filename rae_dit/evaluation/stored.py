"""Images in files to be evaluated: an ADM-style .npz, a directory of pictures, or one picture.

They are read in order and in blocks, so that 50,000 images need little memory. ADM's .npz holds
"arr_0", uint8 [n, H, W, 3], and optionally "arr_1", the labels. Pictures are sorted by name; if
every name ends in _LABEL (as of --mode=sample: 000123_7.png), that is the image's label.
"""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from rae_dit.data.files import SourceError
from rae_dit.data.images import BadImageError, decode

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images of one size in files.

    Attributes:
        path: the .npz, the directory, or a single picture.
        shape: (n, H, W, 3).
        labels: int [n]; None if unknown.
        files: the pictures in order; empty for an .npz.
    """

    path: Path
    shape: tuple[int, int, int, int]
    labels: np.ndarray | None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yields images start..stop-1 as uint8 [b, H, W, 3], b <= size.

        Raises:
            SourceError: a picture is damaged or of another size, or the .npz is truncated.
        """
        stop = len(self) if stop is None else stop
        starts = range(start, stop, size)
        if self.files:
            for first in starts:
                yield np.stack([self._picture(i) for i in range(first, min(first + size, stop))])
            return
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            _header(file, self.path)
            one = int(np.prod(self.shape[1:]))
            _skip(file, start * one)
            for first in starts:
                rows = min(size, stop - first)
                content = file.read(rows * one)
                if len(content) != rows * one:
                    raise SourceError(f"{self.path}: truncated before image {first + rows}")
                yield np.frombuffer(content, np.uint8).reshape(rows, *self.shape[1:])

    def _picture(self, index: int) -> np.ndarray:
        image = _read(self.files[index])
        if image.shape != self.shape[1:]:
            raise SourceError(
                f"{self.files[index]}: got {_size(image.shape)} pixels; expected "
                f"{_size(self.shape[1:])} as of {self.files[0].name}"
            )
        return image


def open_stored(path: str | Path) -> StoredImages:
    """Opens images in an .npz, a directory, or one picture.

    Raises:
        SourceError: there is no such path, or no images of the expected kind in it; one line.
    """
    path = Path(path)
    if path.is_dir():
        names = (p for p in path.iterdir() if not p.name.startswith(".") and p.name != "grid.png")
        files = tuple(sorted(p for p in names if p.suffix.lower() in SUFFIXES))
        if not files:
            raise SourceError(f"got {str(path)!r}, which holds no {', '.join(SUFFIXES)} files")
        return _pictures(path, files)
    if not path.is_file():
        raise SourceError(f"got {str(path)!r}; expected an .npz, a picture or a directory of them")
    if path.suffix.lower() in SUFFIXES:
        return _pictures(path, (path,))
    return _npz(path)


def _pictures(path: Path, files: tuple[Path, ...]) -> StoredImages:
    height, width, _ = _read(files[0]).shape
    found = [re.search(r"_(\d+)$", file.stem) for file in files]
    labels = [int(match[1]) for match in found if match]
    known = np.array(labels) if len(labels) == len(files) else None
    return StoredImages(path, (len(files), height, width, 3), known, files)


def _npz(path: Path) -> StoredImages:
    if not zipfile.is_zipfile(path):
        raise SourceError(
            f"got {str(path)!r}, which is not an .npz; expected one with the array arr_0"
        )
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "arr_0" not in names:
            raise SourceError(
                f"got {str(path)!r} with the arrays {names}; expected images in arr_0"
            )
        with archive.open("arr_0.npy") as file:
            shape = _header(file, path)
    labels = None
    if "arr_1" in names:
        with np.load(path) as arrays:
            labels = arrays["arr_1"]
        if labels.shape != shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise SourceError(
                f"{path}: got labels arr_1 of {labels.dtype} {list(labels.shape)}; expected "
                f"integers [{shape[0]}]"
            )
    return StoredImages(path, shape, labels)


def _header(file: IO[bytes], path: Path) -> tuple[int, int, int, int]:
    """Reads the header of arr_0 and checks that images follow it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise SourceError(
            f"{path}: got arr_0 of {dtype} {list(shape)}; expected uint8 [n, H, W, 3] with n >= 1"
        )
    return shape


def _skip(file: IO[bytes], count: int) -> None:
    """Skips bytes; a compressed member can only be read."""
    while count > 0:
        step = len(file.read(min(count, 1 << 24)))
        if step == 0:
            return
        count -= step


def _read(path: Path) -> np.ndarray:
    try:
        return np.asarray(decode(path.read_bytes()))
    except (OSError, BadImageError) as error:
        raise SourceError(f"{path} cannot be read as an image: {error}") from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
