"""Torch files in the format before 1.6, without zip: FID's Inception and VGG16 are published so.

Such a file is a row of pickles: a magic number, a version, facts about the machine, the object, and
the keys of its storages; then, for each key, the number of elements and the elements. The rules are
those of torch_file.py: nothing but containers, numbers, strings and tensors is unpickled, and
tensors are read when they are asked for.

Source: `torch/serialization.py`, `_legacy_save` (torch 2.13).
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.torch_file import DAMAGE, DTYPES, Storage, StorageType, TensorOnlyUnpickler

MAGIC = 0x1950A86A20F9469CFC6C
START = pickle.dumps(MAGIC, protocol=2)
COUNT_BYTES = 8  # of the number of elements before each storage


def is_legacy(path: str | Path) -> bool:
    """Tells whether a file starts with the magic number of this format."""
    with Path(path).open("rb") as file:
        return file.read(len(START)) == START


class LegacyUnpickler(TensorOnlyUnpickler):
    """Unpickler that records the storages it reads."""

    def __init__(self, file: Any, reader: "LegacyReader"):
        super().__init__(file, "", reader)
        self.met: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Allows one more name, that of tensors before torch 0.4."""
        if (module, name) == ("torch._utils", "_rebuild_tensor"):
            return self.rebuild_tensor
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        """Records a storage: ("storage", type, key, device, length, None)."""
        match pid:
            case ("storage", StorageType(name=name), str(key), _, int(length), None):
                self.met[key] = Storage(key, DTYPES[name], length)
                return self.met[key]
        raise WeightsError(f"The file is damaged: it holds a record {pid!r}, not a storage.")


class LegacyReader:
    """Reads storages of one file; their offsets are known once the pickles are read."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.places: dict[str, int] = {}

    def locate(self, keys: list[str], storages: dict[str, Storage], start: int) -> None:
        """Records the offset of each storage, in the order of the file.

        Raises:
            WeightsError: the file is shorter than its storages.
        """
        for key in keys:
            self.places[key] = start + COUNT_BYTES
            start += COUNT_BYTES + storages[key].length * storages[key].dtype.itemsize
        if start != self.path.stat().st_size:
            raise WeightsError(
                f"{self.path} has {self.path.stat().st_size} bytes and should have {start}: it is "
                "truncated or damaged. Fetch it again."
            )

    def __call__(self, storage: Storage) -> np.ndarray:
        """Reads the numbers of a storage; the array is read-only."""
        with self.path.open("rb") as file:
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
        WeightsError: the file is damaged, was written on a big-endian machine, or holds more than
            tensors, containers, numbers and strings.
    """
    reader = LegacyReader(path)
    with Path(path).open("rb") as file:
        try:
            magic, version, machine = (LegacyUnpickler(file, reader).load() for _ in range(3))
            if magic != MAGIC or version != 1001 or not machine["little_endian"]:
                raise WeightsError(f"{path} is of another version or machine; re-save it.")
            unpickler = LegacyUnpickler(file, reader)
            found = unpickler.load()
            keys = LegacyUnpickler(file, reader).load()
            reader.locate(keys, unpickler.met, file.tell())
        except DAMAGE as error:
            raise WeightsError(f"{path} is damaged: {error}.") from error
    return found
