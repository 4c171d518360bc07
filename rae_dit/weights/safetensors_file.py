"""Reader of safetensors files.

The library checks the header: that sizes, offsets and the length of the file agree. The numbers are
read here, because it gives numpy no 8-bit floats, and no shape without its numbers.

Source: https://github.com/huggingface/safetensors (format).
"""

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np

from rae_dit.weights.errors import WeightsError, brief, naming, reading
from rae_dit.weights.lazy_tensor import (
    DTYPES,
    MAX_DIMENSIONS,
    LazyTensor,
    Storage,
    row_major,
    unreadable,
)

LENGTH_BYTES = 8  # of the header's length, before the header
NAMES = {
    "F64": DTYPES["float64"],
    "F32": DTYPES["float32"],
    "F16": DTYPES["float16"],
    "BF16": DTYPES["bfloat16"],
    "F8_E4M3": DTYPES["float8_e4m3fn"],
    "F8_E5M2": DTYPES["float8_e5m2"],
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I64": DTYPES["int64"],
    "I32": DTYPES["int32"],
    "I16": DTYPES["int16"],
    "I8": DTYPES["int8"],
    "U64": DTYPES["uint64"],
    "U32": DTYPES["uint32"],
    "U16": DTYPES["uint16"],
    "U8": DTYPES["uint8"],
    "BOOL": DTYPES["bool"],
    "C64": DTYPES["complex64"],
}


def is_safetensors(start: bytes) -> bool:
    """Tells whether a file with these first 9 bytes is one: a length, then a JSON object."""
    return start[LENGTH_BYTES:] == b"{"


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Reads the header of a file; the numbers are read when they are asked for.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    with naming(path):
        try:
            with safe_open(path, "numpy"):
                pass
        except SafetensorError as error:
            raise WeightsError(
                f"{path} is not a whole safetensors file ({brief(error)}): fetch it again."
            ) from error
        with reading(path), path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {
            name: tensor(path, name, LENGTH_BYTES + length, **facts)
            for name, facts in header.items()
        }


def tensor(
    path: Path, name: str, start: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> LazyTensor:
    """Makes the tensor of one entry of the header.

    Args:
        path: the file.
        name: of the entry.
        start: offset of the numbers of all tensors.
        dtype: safetensors' name of it.
        shape: its sizes.
        data_offsets: of its first byte and after its last, from `start` on.
    """
    if dtype not in NAMES or len(shape) > MAX_DIMENSIONS:
        reason = f"{path}: {name!r} is of {len(shape)} dimensions of {dtype}, which is not read."
        return unreadable((), reason)

    def read(storage: Storage) -> np.ndarray:
        with reading(path), path.open("rb") as file:
            file.seek(start + data_offsets[0])
            raw = file.read(storage.length * storage.dtype.itemsize)
            return np.frombuffer(raw, storage.dtype, storage.length)

    storage = Storage(name, NAMES[dtype], math.prod(shape))
    made = LazyTensor(storage, 0, tuple(shape), row_major(shape), read)
    made.check()
    return made
