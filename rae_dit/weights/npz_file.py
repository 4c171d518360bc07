"""Reader of numpy's .npz files: a zip of arrays, which may be compressed.

Sizes are checked before anything is unpacked: an array has as many bytes as its header says, and
all arrays together are not much larger than the file. Arrays of Python objects are refused.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from rae_dit.weights.errors import WeightsError, naming, parsing, reading
from rae_dit.weights.lazy_tensor import LazyTensor, Storage, row_major, unreadable

SUFFIX = ".npy"
KINDS = "biufc"  # of dtypes: booleans, integers, floats, complex numbers
MAX_RATIO = 16  # of unpacked to packed; weights reach 1.1
FREE = 1 << 20  # bytes that may be unpacked whatever the ratio, such as constant statistics
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


class Header(NamedTuple):
    """What an array says about itself: shape, memory order and type."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def is_npz(path: Path) -> bool:
    """Tells whether a file is a zip of .npy arrays only."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def read_npz(path: Path) -> dict[str, LazyTensor]:
    """Reads the headers of all arrays; the numbers are read when they are asked for.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is damaged, or unpacks to far more than its size.
    """
    with naming(path):
        with reading(path):
            archive = zipfile.ZipFile(path)  # stays open: its directory is parsed once
        check_sizes(archive, path)
        return {
            info.filename.removesuffix(SUFFIX): tensor(path, archive, info)
            for info in archive.infolist()
        }


def check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuses an archive that unpacks to far more than its size, before it is unpacked.

    Raises:
        WeightsError: it does, or holds what numpy does not write.
    """
    infos = archive.infolist()
    for info in infos:
        if info.compress_type not in METHODS or info.flag_bits & ENCRYPTED:
            raise WeightsError(
                f"{path}: {info.filename!r} is packed in a way numpy does not use; save it anew"
            )
    unpacked, size = sum(info.file_size for info in infos), path.stat().st_size
    if unpacked > MAX_RATIO * size + FREE:
        raise WeightsError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,}; expected less; save it anew"
        )


def tensor(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> LazyTensor:
    """Makes the tensor of one array."""
    with parsing(path), archive.open(info) as file:
        header = read_header(file)
        length = file.tell()
    name = f"{path}: {info.filename!r}"
    if header.dtype.kind not in KINDS:
        return unreadable((), f"{name} is of {header.dtype}, which is not read; expected numbers.")
    count = math.prod(header.shape)
    if length + count * header.dtype.itemsize != info.file_size:
        raise WeightsError(f"{name} has {info.file_size} bytes, which shape {header.shape} is not.")

    def read(storage: Storage) -> np.ndarray:
        with reading(path), archive.open(info) as file:
            raw = file.read(info.file_size)
            return np.frombuffer(raw, storage.dtype, storage.length, length)

    strides = row_major(header.shape)
    if header.fortran:
        strides = row_major(header.shape[::-1])[::-1]
    made = LazyTensor(Storage(name, header.dtype, count), 0, header.shape, strides, read)
    made.check()
    return made


def read_header(file: IO[bytes]) -> Header:
    """Reads the header of an array, and leaves the file at the numbers behind it.

    Raises:
        Exception: several, on damaged bytes; see `errors.parsing`.
    """
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return Header(*read(file))
