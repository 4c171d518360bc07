"""Tensors whose numbers are still in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import ml_dtypes
import numpy as np

from rae_dit.weights.errors import WeightsError

# numpy's dtype for each of torch's, by torch's name.
DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint64": np.dtype(np.uint64),
    "uint32": np.dtype(np.uint32),
    "uint16": np.dtype(np.uint16),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}

MAX_DIMENSIONS = 32
# A tensor may show its numbers several times (torch keeps `expand` as strides of 0), up to here;
# sizes beside a size of 0 count too, because architectures are read off shapes.
MAX_REPEATED = 1 << 24


@dataclass(frozen=True)
class Storage:
    """Location of a storage in a file, not yet read."""

    entry: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose numbers are still in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    read_storage: Callable[[Storage], np.ndarray]
    readable: bool = True

    def check(self) -> None:
        """Checks that shape and strides fit the storage; reads and allocates nothing.

        Raises:
            WeightsError: the tensor claims numbers outside its storage, or absurdly many.
        """
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_DIMENSIONS:
            raise WeightsError(
                f"A tensor has {len(self.shape)} sizes and {len(self.strides)} strides: the file "
                "is damaged."
            )
        if any(type(number) is not int for number in numbers):
            raise WeightsError("A tensor has a shape that is not of integers: the file is damaged.")
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        if min(numbers) < 0 or (0 not in self.shape and last >= self.storage.length):
            raise WeightsError(
                f"A tensor of shape {self.shape} and strides {self.strides} at {self.offset} "
                f"reaches outside its storage of {self.storage.length} numbers: the file is "
                "damaged."
            )
        shown = 1
        for size in self.shape:
            shown *= max(size, 1)
        if shown > max(self.storage.length, MAX_REPEATED):
            raise WeightsError(
                f"A tensor of shape {self.shape} is made of {self.storage.length} numbers: the "
                "file is damaged."
            )

    def read(self) -> np.ndarray:
        """Reads the numbers; the array is read-only.

        Raises:
            WeightsError: if the tensor claims numbers outside its storage, or they are damaged.
        """
        if self.readable:
            self.check()
        numbers = self.read_storage(self.storage)
        if 0 in self.shape:
            return np.empty(self.shape, numbers.dtype)
        width = numbers.itemsize
        # The stride of a single row is never used, and may be beyond what numpy can hold.
        steps = zip(self.shape, self.strides, strict=True)
        strides = [stride * width if size > 1 else 0 for size, stride in steps]
        raw = numbers.view(np.uint8)  # numpy cannot hand on a buffer of all of ml_dtypes
        array = np.ndarray(self.shape, numbers.dtype, raw, self.offset * width, strides)
        array.flags.writeable = False
        return array


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the strides of a tensor whose numbers lie in the order of its indices."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def unreadable(shape: tuple[int, ...], reason: str) -> LazyTensor:
    """Returns a tensor that is refused when it is read, so that others in the file are not."""

    def refuse(storage: Storage) -> NoReturn:
        raise WeightsError(reason)

    return LazyTensor(Storage("", DTYPES["float32"], 0), 0, shape, (), refuse, readable=False)
