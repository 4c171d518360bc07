"""Reader of torch.distributed.checkpoint's directories, which FSDP2 trainers write.

`.metadata` is a pickle: the shape of every tensor, and where its chunks are. A chunk is a torch
file of its own, somewhere in one of the `.distcp` files. Chunks are put together when a tensor is
read. As in torch files, nothing is run, and what is no tensor is passed over.

Source: `torch/distributed/checkpoint/metadata.py`, `filesystem.py` (torch 2.13).
"""

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rae_dit.weights.errors import WeightsError, naming, parsing
from rae_dit.weights.lazy_tensor import DTYPES, LazyTensor, Storage, row_major
from rae_dit.weights.safe_pickle import Placeholder
from rae_dit.weights.tensor_pickle import load_pickle
from rae_dit.weights.torch_file import read_torch_content

METADATA = ".metadata"
TENSOR = "torch.distributed.checkpoint.metadata.TensorStorageMetadata"


class Chunk(NamedTuple):
    """A part of a tensor: where it belongs, and where it is."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    file: Path
    offset: int
    length: int


def is_distributed(directory: Path) -> bool:
    """Tells whether a directory is such a checkpoint."""
    return (directory / METADATA).is_file() and any(directory.glob("*.distcp"))


def read_distributed(directory: Path) -> dict[Any, Any]:
    """Reads what such a checkpoint holds, with a lazy tensor for every tensor.

    Raises:
        WeightsError: it is damaged or incomplete, or its chunks are compressed.
    """
    path = directory / METADATA
    with naming(path):
        metadata = load_pickle(io.BytesIO(path.read_bytes()), refuse_storage, read_nothing)
        facts = state_of(metadata)
        places = dict(stored_chunks(state_of_dict(facts, "storage_data"), directory))
        missing = sorted({file.name for file, *_ in places.values() if not file.is_file()})
        if missing:
            raise WeightsError(f"{missing[0]} is missing; fetch all files of {directory}.")
        paths = facts.get("planner_data")
        content: dict[Any, Any] = {}
        for name, tensor in state_of_dict(facts, "state_dict_metadata").items():
            if type(tensor) is Placeholder and tensor.name == TENSOR:
                place = paths.get(name) if isinstance(paths, dict) else None
                insert(content, place or (name,), lazy_tensor(name, state_of(tensor), places))
        return content


def stored_chunks(
    stored: Mapping[Any, Any], directory: Path
) -> Iterator[tuple[tuple[str, tuple[int, ...]], tuple[Path, int, int]]]:
    """Yields (name, start in the tensor) and (file, offset, length) of every chunk."""
    for index, info in stored.items():
        where, found = state_of(index), state_of(info)
        if found.get("transform_descriptors"):
            raise WeightsError("Its chunks are compressed; convert it by torch (dcp_to_torch).")
        file, offset, length = (found.get(k) for k in ("relative_path", "offset", "length"))
        if type(file) is not str or PurePosixPath(file).name != file:
            raise WeightsError("It is damaged: a chunk is not in a file of the directory.")
        if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
            raise WeightsError("It is damaged: a chunk has no place in its file.")
        start = where.get("offset") or ()
        yield (str(where.get("fqn")), sizes(start)), (directory / file, offset, length)


def lazy_tensor(
    name: str,
    facts: Mapping[str, Any],
    places: Mapping[tuple[str, tuple[int, ...]], tuple[Path, int, int]],
) -> LazyTensor:
    """Makes a tensor of its metadata; its chunks must cover it."""
    shape, properties = sizes(facts.get("size")), state_of(facts.get("properties"), tuple)
    kind = properties[0] if properties else None
    dtype = DTYPES.get(kind.name.removeprefix("torch.")) if type(kind) is Placeholder else None
    if dtype is None:
        raise WeightsError(f"{name} is of {kind!r:.60}, which is not read; convert it to float32.")
    chunks = []
    for part in listed(facts.get("chunks")):
        start, size = (sizes(state_of(part).get(key)) for key in ("offsets", "sizes"))
        place = places.get((name, start))
        fits = len(start) == len(size) == len(shape)
        ends = [a + b <= c for a, b, c in zip(start, size, shape, strict=False)]
        if place is None or not fits or not all(ends):
            raise WeightsError(f"It is incomplete or damaged: a chunk of {name} is nowhere.")
        chunks.append(Chunk(start, size, *place))
    count, stored = math.prod(shape), sum(chunk.length for chunk in chunks)
    parts = sum(math.prod(chunk.shape) for chunk in chunks)
    if parts != count or count * dtype.itemsize > stored:
        raise WeightsError(f"It is incomplete or damaged: chunks do not make up {name} {shape}.")

    def read(storage: Storage) -> np.ndarray:
        whole = np.zeros(shape, dtype)
        for chunk in chunks:
            region = tuple(slice(a, a + b) for a, b in zip(chunk.start, chunk.shape, strict=True))
            whole[region] = read_chunk(chunk, dtype)
        return whole.reshape(-1)

    made = LazyTensor(Storage(name, dtype, count), 0, shape, row_major(shape), read)
    made.check()
    return made


def read_chunk(chunk: Chunk, dtype: np.dtype) -> np.ndarray:
    """Reads the numbers of a chunk."""
    with naming(chunk.file):
        with parsing(), chunk.file.open("rb") as file:
            file.seek(chunk.offset)
            raw = io.BytesIO(file.read(min(chunk.length, chunk.file.stat().st_size)))
        tensor = read_torch_content(raw, chunk.file)
        if not isinstance(tensor, LazyTensor) or tensor.shape != chunk.shape:
            raise WeightsError(f"It is damaged: a chunk is no tensor of {chunk.shape}.")
        if tensor.storage.dtype != dtype:
            raise WeightsError(f"It is damaged: a chunk is not of {dtype}.")
        return tensor.read()


def insert(content: dict[Any, Any], place: Any, tensor: LazyTensor) -> None:
    """Puts a tensor where its path in the tree of the checkpoint says."""
    if not isinstance(place, tuple | list) or not all(type(key) in (str, int) for key in place):
        raise WeightsError("It is damaged: a tensor has no path of names.")
    *branches, last = place
    for key in branches:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise WeightsError("It is damaged: a tensor is inside another.")
    content[last] = tensor


def sizes(value: Any) -> tuple[int, ...]:
    """Checks a tuple of sizes or places."""
    if type(value) is not tuple or any(type(size) is not int or size < 0 for size in value):
        raise WeightsError("It is damaged: a shape is not of integers.")
    return value


def listed(value: Any) -> list[Any]:
    """Checks a list."""
    if not isinstance(value, list):
        raise WeightsError("It is damaged: a tensor has no list of chunks.")
    return value


def state_of(value: Any, kind: type = dict) -> Any:
    """Returns the state of a placeholder, checked to be of a kind."""
    if type(value) is not Placeholder or type(value.state) is not kind:
        raise WeightsError("It is damaged: it is not what torch.distributed.checkpoint writes.")
    return value.state


def state_of_dict(facts: Mapping[str, Any], name: str) -> dict[Any, Any]:
    """Returns a dict of the metadata."""
    found = facts.get(name)
    if not isinstance(found, dict):
        raise WeightsError(f"It is damaged: it has no {name}.")
    return found


def refuse_storage(pid: Any) -> NoReturn:
    """Refuses tensors in the metadata."""
    raise WeightsError("It is damaged: it holds numbers of its own.")


def read_nothing(storage: Storage) -> np.ndarray:
    """Is never called: the metadata has no tensors."""
    raise WeightsError("It is damaged: it holds numbers of its own.")
