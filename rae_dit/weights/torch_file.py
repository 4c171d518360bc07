"""Torch's zip files (.pt, .pth, .ckpt, .bin) read and written without torch, and without risk.

Such a file is a zip of `data.pkl`, which pickles the structure, and one raw file of numbers a
storage. A pickle is a program; here it may only name what a tensor is made of.
Whatever else it names is refused before anything runs, with the name in the error.

Tensors are read when they are asked for, so opening a training checkpoint for its EMA does not read
its optimizer, and importing a model needs little more memory than the model.

Source: `torch/serialization.py`, `torch/_weights_only_unpickler.py` (torch 2.13).
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rae_dit.weights.mapping import WeightsError

DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}

# What the pickle machine raises on a pickle that is cut or altered.
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, zipfile.BadZipFile),
    *(TypeError, AttributeError, IndexError, KeyError),
)


class StorageType(NamedTuple):
    """Inert stand-in for a storage class named in a pickle."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Location of a storage in the zip, not yet read."""

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

    def read(self) -> np.ndarray:
        """Reads the numbers.

        Raises:
            WeightsError: if the tensor claims numbers outside its storage.
        """
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        whole = (self.offset, *self.shape, *self.strides)
        if min(whole) < 0 or (0 not in self.shape and last >= self.storage.length):
            raise WeightsError(
                f"A tensor of shape {self.shape} and strides {self.strides} at {self.offset} "
                f"reaches outside its storage of {self.storage.length} numbers: the file is "
                "damaged."
            )
        numbers = self.read_storage(self.storage)[self.offset :]
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides, writeable=False)


class TensorOnlyUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, strings and tensors; refuses every other name."""

    def __init__(self, file: Any, root: str, read_storage: Callable[[Storage], np.ndarray]):
        super().__init__(file)
        self.root = root
        self.read_storage = read_storage

    def find_class(self, module: str, name: str) -> Any:
        """Returns the allowed object for a pickled name; raises for all others."""
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return self.rebuild_tensor
            case "torch._utils", "_rebuild_parameter":
                return lambda tensor, requires_grad, hooks: tensor
            case "torch", "Size":
                return tuple
            case "torch", _ if name in DTYPES:
                return StorageType(name)
        raise WeightsError(
            f"The file asks for {module}.{name}, which is code and not a tensor; it was not run. "
            "Save the state dict alone (torch.save(model.state_dict(), path)) and open that."
        )

    def persistent_load(self, pid: Any) -> Storage:
        """Records a storage: ("storage", type, key, device, length)."""
        match pid:
            case ("storage", StorageType(name=name), str(key), _, int(length)):
                return Storage(f"{self.root}/data/{key}", DTYPES[name], length)
        raise WeightsError(f"The file is damaged: it holds a record {pid!r}, not a storage.")

    def rebuild_tensor(
        self,
        storage: Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *_: Any,
    ) -> LazyTensor:
        """Makes a LazyTensor from the arguments of `torch._utils._rebuild_tensor_v2`."""
        return LazyTensor(storage, offset, tuple(shape), tuple(strides), self.read_storage)


class StorageReader:
    """Reads storages from one zip; caches the last one, which tensors may share."""

    def __init__(self, archive: zipfile.ZipFile):
        self.archive = archive
        self.entry = ""
        self.numbers = np.empty(0)

    def __call__(self, storage: Storage) -> np.ndarray:
        """Reads the numbers of a storage; the array is read-only."""
        if storage.entry != self.entry:
            try:
                raw = self.archive.read(storage.entry)
            except (KeyError, zipfile.BadZipFile, EOFError, OSError) as error:
                raise WeightsError(f"{self.archive.filename} is damaged: {error}.") from error
            if len(raw) != storage.length * storage.dtype.itemsize:
                raise WeightsError(
                    f"{self.archive.filename} is damaged: {storage.entry} has {len(raw)} bytes "
                    f"and should have {storage.length} numbers of {storage.dtype}."
                )
            self.entry = storage.entry
            self.numbers = np.frombuffer(raw, storage.dtype)
        return self.numbers


def read_torch_file(path: str | Path) -> Any:
    """Reads the object in a torch file, with a `LazyTensor` for every tensor.

    Raises:
        WeightsError: if the file is not a torch zip, is truncated, or holds more than tensors,
            containers, numbers and strings.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"{path} is not a whole torch file ({error}): it is truncated, of another kind, or "
            "older than torch 1.6. Fetch it again, or re-save it with today's torch."
        ) from error
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"{path} is a zip file, but not one that torch.save wrote.")
    root = pickles[0].removesuffix("/data.pkl")
    endian = f"{root}/byteorder"
    if endian in archive.namelist() and archive.read(endian) != b"little":
        raise WeightsError(f"{path} was written on a big-endian machine; re-save it on another.")
    with archive.open(pickles[0]) as file:
        try:
            return TensorOnlyUnpickler(file, root, StorageReader(archive)).load()
        except DAMAGE as error:
            raise WeightsError(f"{path} is damaged: {error}.") from error


def write_torch_file(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict of float32 tensors as `torch.save` would: torch.load opens it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle_state_dict(tensors))
        archive.writestr("archive/byteorder", "little")
        for number, tensor in enumerate(tensors.values()):
            with archive.open(f"archive/data/{number}", "w", force_zip64=True) as file:
                file.write(np.ascontiguousarray(tensor, np.float32).data)
        archive.writestr("archive/version", "3\n")


def pickle_state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Writes the pickle of an OrderedDict of contiguous float32 tensors, opcode by opcode.

    `pickle.dumps` would need torch to be importable, to name its classes.
    """

    def text(value: str) -> bytes:
        encoded = value.encode()
        return pickle.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded

    def integer(value: int) -> bytes:
        return pickle.LONG1 + b"\x08" + value.to_bytes(8, "little", signed=True)

    def integers(values: tuple[int, ...]) -> bytes:
        return pickle.MARK + b"".join(integer(value) for value in values) + pickle.TUPLE

    empty = b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
    rows = []
    for number, (name, tensor) in enumerate(tensors.items()):
        strides = tuple(int(np.prod(tensor.shape[axis + 1 :])) for axis in range(tensor.ndim))
        storage = (
            *(pickle.MARK, text("storage"), b"ctorch\nFloatStorage\n", text(str(number))),
            *(text("cpu"), integer(tensor.size), pickle.TUPLE, pickle.BINPERSID),
        )
        rows += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", pickle.MARK, *storage]
        rows += [integer(0), integers(tensor.shape), integers(strides), pickle.NEWFALSE, empty]
        rows += [pickle.TUPLE, pickle.REDUCE]
    body = [pickle.MARK, *rows, pickle.SETITEMS]
    return b"".join([pickle.PROTO, b"\x02", empty, *body, pickle.STOP])
