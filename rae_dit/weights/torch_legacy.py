"""Torch files in the format before 1.6, without zip: FID's Inception and VGG16 are published so.

Such a file is a row of pickles: a magic number, a version, facts about the machine, the object, and
the keys of its storages; then, for each key, the number of elements and the elements. The rules are
those of torch_file.py: the pickles are not run, and tensors are read when they are asked for.

Source: `torch/serialization.py`, `_legacy_save` (torch 2.13).
"""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rae_dit.storage.places import place
from rae_dit.weights.errors import WeightsError, naming, reading
from rae_dit.weights.lazy_tensor import Storage
from rae_dit.weights.tensor_pickle import load_pickle, storage_of

MAGIC = 0x1950A86A20F9469CFC6C
START = pickle.dumps(MAGIC, protocol=2)
MAX_NAME = 1000  # bytes of a name of a class
COUNT_BYTES = 8  # of the number of elements before each storage


def is_legacy(path: str | Path) -> bool:
    """Tells whether a file starts with the magic number of this format."""
    with place(path).open("rb") as file:
        return file.read(len(START)) == START


class Bounded:
    """A file, read no further than it goes: a length of 2**40 is not allocated first."""

    def __init__(self, file: BinaryIO, size: int):
        self.file = file
        self.size = self.left = size

    def read(self, count: int, /) -> bytes:
        """Reads at most `count` bytes."""
        found = self.file.read(min(count, self.left))
        self.left -= len(found)
        return found

    def readline(self) -> bytes:
        """Reads a name, up to the end of its line."""
        found = self.file.readline(min(MAX_NAME, self.left))
        self.left -= len(found)
        return found

    def tell(self) -> int:
        """Returns the position."""
        return self.size - self.left


class LegacyReader:
    """Reads storages of one file; their offsets are known once the pickles are read."""

    def __init__(self, path: str | Path):
        self.path = place(path)
        self.places: dict[str, int] = {}

    def locate(self, keys: Any, storages: dict[str, Storage], start: int) -> None:
        """Records the offset of each storage, in the order of the file.

        Raises:
            WeightsError: the file is shorter than its storages, or has no list of them.
        """
        if not isinstance(keys, list):
            raise WeightsError(f"{self.path} is damaged: it has no list of storages.")
        for key in keys:
            if type(key) is not str or key not in storages:
                raise WeightsError(f"{self.path} is damaged: it names a storage of no tensor.")
            self.places[key] = start + COUNT_BYTES
            start += COUNT_BYTES + storages[key].length * storages[key].dtype.itemsize
        if start != self.path.stat().st_size:
            raise WeightsError(
                f"{self.path} has {self.path.stat().st_size} bytes and should have {start}: it is "
                "truncated or damaged. Fetch it again."
            )
        if missing := storages.keys() - self.places.keys():
            raise WeightsError(f"{self.path} is damaged: it lacks storages {sorted(missing)[:5]}.")

    def __call__(self, storage: Storage) -> np.ndarray:
        """Reads the numbers of a storage; the array is read-only."""
        with reading(self.path), self.path.open("rb") as file:
            file.seek(self.places[storage.entry] - COUNT_BYTES)
            count = int.from_bytes(file.read(COUNT_BYTES), "little")
            raw = file.read(storage.length * storage.dtype.itemsize)
        if count != storage.length:
            raise WeightsError(
                f"{self.path} is damaged: storage {storage.entry} has {count} numbers and should "
                f"have {storage.length}."
            )
        return np.frombuffer(raw, storage.dtype)


def read_legacy(path: str | Path) -> Any:
    """Reads the object in such a file, with a `LazyTensor` for every tensor.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged, was written on a big-endian machine, or was made to do
            harm.
    """
    reader = LegacyReader(path)
    storages: dict[str, Storage] = {}

    def load_storage(pid: Any) -> Storage:
        match pid:
            case ("storage", kind, str(key), _, length, None):
                storages[key] = storage_of(kind, key, length)
                return storages[key]
        raise WeightsError("It is damaged: its pickle has a record that is no storage.")

    with naming(path), place(path).open("rb") as opened:
        file = Bounded(opened, place(path).stat().st_size)
        parts = (load_pickle(file, load_storage, reader) for _ in range(5))
        magic, version, machine = (next(parts) for _ in range(3))
        if not isinstance(machine, dict):
            raise WeightsError(f"{path} is damaged: it does not say of which machine it is.")
        if (magic, version) != (MAGIC, 1001) or machine.get("little_endian") is not True:
            raise WeightsError(f"{path} is of another version or machine; re-save it.")
        content, keys = parts
        reader.locate(keys, storages, file.tell())
    return content
