"""Torch's zip files (.pt, .pth, .ckpt, .bin) read and written without torch, and without risk.

Such a file is a zip of `data.pkl`, which pickles the structure, and one raw file of numbers a
storage. The pickle is not run (`safe_pickle`): tensors are found in it, and everything else that
it names (arguments of the run, optimizers, paths, random states) becomes an inert placeholder.

Tensors are read when they are asked for, so opening a training checkpoint for its EMA does not read
its optimizer, and importing a model needs little more memory than the model.

Source: `torch/serialization.py` (torch 2.13).
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rae_dit.storage.reading import local_copy
from rae_dit.weights.errors import WeightsError, naming, refuse_pointer
from rae_dit.weights.lazy_tensor import LazyTensor as LazyTensor
from rae_dit.weights.lazy_tensor import Storage
from rae_dit.weights.stored_zip import StoredZip
from rae_dit.weights.tensor_pickle import load_pickle, storage_of


class StorageReader:
    """Reads storages from one zip; caches the last one, which tensors may share."""

    def __init__(self, archive: StoredZip):
        self.archive = archive
        self.entry = ""
        self.raw = b""

    def __call__(self, storage: Storage) -> np.ndarray:
        """Reads the numbers of a storage; the array is read-only."""
        if storage.entry != self.entry:
            size = storage.length * storage.dtype.itemsize
            found = self.archive.size(storage.entry)
            if found != size:
                raise WeightsError(
                    f"{self.archive.path} is damaged: {storage.entry} has {found} bytes and should "
                    f"have {storage.length} numbers of {storage.dtype}."
                )
            self.raw = self.archive.read(storage.entry)
            self.entry = storage.entry
        return np.frombuffer(self.raw, storage.dtype)


def read_torch_file(path: str | Path) -> Any:
    """Reads the object in a torch file, with a `LazyTensor` for every tensor.

    Whatever else it holds is a number, a string, a list, a tuple, a dict or a `Placeholder`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: if the file is not a torch zip, is truncated or damaged, or was made to
            do harm.
    """
    path = local_copy(path)
    with naming(path):
        refuse_pointer(path)
        return read_torch_content(path.open("rb"), path)


def read_torch_content(file: BinaryIO, path: Path) -> Any:
    """Reads the object in an open torch file, which stays open; raises as `read_torch_file`.

    Args:
        file: the file.
        path: its path, for messages.
    """
    archive = StoredZip(file, path)
    pickles = [name for name in archive.names() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(
            f"{path} is a zip file, but not one that torch.save wrote; expected a file of torch, "
            "safetensors or .npz"
        )
    root = pickles[0].removesuffix("/data.pkl")
    endian = f"{root}/byteorder"
    if endian in archive.names() and archive.read(endian) != b"little":
        raise WeightsError(f"{path} was written on a big-endian machine; re-save it on another.")

    def load_storage(pid: Any) -> Storage:
        match pid:
            case ("storage", kind, str(key), _, length):
                return storage_of(kind, f"{root}/data/{key}", length)
        raise WeightsError("It is damaged: its pickle has a record that is no storage.")

    with naming(path):
        content = io.BytesIO(archive.read(pickles[0]))
        return load_pickle(content, load_storage, StorageReader(archive))


def write_torch_file(
    path: str | Path, tensors: Mapping[str, np.ndarray], extra: Mapping[str, str] | None = None
) -> None:
    """Writes a state dict of float32 tensors as `torch.save` would: torch.load opens it.

    Args:
        path: the file.
        tensors: the state dict.
        extra: texts by name, in the folder where torch keeps a user's own files.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle_state_dict(tensors))
        archive.writestr("archive/byteorder", "little")
        for number, tensor in enumerate(tensors.values()):
            with archive.open(f"archive/data/{number}", "w", force_zip64=True) as file:
                file.write(np.ascontiguousarray(tensor, np.float32).data)
        archive.writestr("archive/version", "3\n")
        for name, text in (extra or {}).items():
            archive.writestr(f"archive/extra/{name}", text)


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
