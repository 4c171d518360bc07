"""Images in files to be evaluated: an ADM-style .npz, a directory of pictures, or one picture.

They are read in order and in blocks, so that 50,000 images need little memory. ADM's .npz holds
"arr_0", uint8 [n, H, W, 3], and optionally "arr_1", the labels. Pictures are sorted by name. Their
labels are known if --mode=sample made them: it leaves a manifest.json and names NUMBER_LABEL.png.
"""

import hashlib
import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from rae_dit.data.files import SourceError
from rae_dit.data.images import SUFFIXES, BadImageError, decode
from rae_dit.data.shards import kind_of, left_out
from rae_dit.evaluation.npz_file import one_line, read_headers
from rae_dit.storage.reading import local_copy
from rae_dit.weights.npz_file import read_header

log = logging.getLogger(__name__)

_MANIFEST, _GRID, _NPZ = "manifest.json", "grid.png", "samples.npz"  # of --mode=sample
_EXPECTED = "an .npz with images in arr_0, a picture or a directory of them"
_MOST_IMAGES, _MOST_PIXELS = 10**7, 2**26


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
        with (
            one_line(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open("arr_0.npy") as file,
        ):
            read_header(file)
            one = int(np.prod(self.shape[1:]))
            _skip(file, start * one)
            for first in starts:
                rows = min(size, stop - first)
                content = file.read(rows * one)
                if len(content) != rows * one:
                    raise SourceError(f"{self.path}: truncated before image {first + rows}")
                yield np.frombuffer(content, np.uint8).reshape(rows, *self.shape[1:])

    def at(self, path: Path) -> "StoredImages":
        """Returns these images as they are on another host, where their path is another one."""
        files = tuple(path / file.relative_to(self.path) for file in self.files)
        return replace(self, path=path, files=files)

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files on this host, or why there is none."""
        names = [file.name for file in self.files]
        try:
            sizes = [file.stat().st_size for file in self.files or (self.path,)]
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return hashlib.sha256(json.dumps([names, sizes]).encode()).hexdigest()[:12]

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
    path = local_copy(path)
    if path.is_dir():
        names = [p for p in path.iterdir() if p.name not in (_MANIFEST, _GRID, _NPZ)]
        files = tuple(sorted(p for p in names if _is_picture(p)))
        others = Counter(kind_of(p.name) for p in names if p not in {*files})
        if not files:
            shown = ", ".join(SUFFIXES[:5])
            raise SourceError(f"got {str(path)!r}, which holds no {shown}, ... files")
        if others:
            log.info("%s: %d pictures; %s", path, len(files), *left_out(others))
        return _pictures(path, files)
    if not path.is_file():
        raise SourceError(f"got {str(path)!r}, which does not exist; expected {_EXPECTED}")
    if path.suffix.lower() in SUFFIXES:
        return _pictures(path, (path,))
    return _npz(path)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _pictures(path: Path, files: tuple[Path, ...]) -> StoredImages:
    height, width, _ = _read(files[0]).shape
    return StoredImages(path, (len(files), height, width, 3), _labels(path, files), files)


def _labels(path: Path, files: tuple[Path, ...]) -> np.ndarray | None:
    """Reads the labels in the names of --mode=sample; None if the pictures are not all its own."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or "num_samples" not in manifest:
        return None
    found = [re.fullmatch(r"\d{6,9}_(\d{1,9})\.png", file.name) for file in files]
    labels = [int(match[1]) for match in found if match]
    return np.array(labels) if len(labels) == len(files) else None


def _npz(path: Path) -> StoredImages:
    headers = read_headers(path, _EXPECTED)
    if "arr_0" not in headers:
        raise SourceError(
            f"got {str(path)!r} with the arrays {[*headers]}; expected images in arr_0"
        )
    shape, fortran, dtype = headers["arr_0"]
    is_images = dtype == np.uint8 and not fortran and len(shape) == 4 and shape[3] == 3
    if (
        not is_images
        or not 1 <= shape[0] <= _MOST_IMAGES
        or not 1 <= shape[1] * shape[2] <= _MOST_PIXELS
    ):
        raise SourceError(
            f"{path}: got arr_0 of {dtype} {list(shape)}; expected uint8 [n, H, W, 3] with n >= 1"
        )
    images = (shape[0], shape[1], shape[2], 3)
    if "arr_1" not in headers:
        return StoredImages(path, images, None)
    labels = headers["arr_1"]
    if labels.shape != images[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise SourceError(
            f"{path}: got labels arr_1 of {labels.dtype} {list(labels.shape)}; expected "
            f"integers [{images[0]}]"
        )
    with one_line(path), np.load(path) as arrays:
        return StoredImages(path, images, arrays["arr_1"])


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
