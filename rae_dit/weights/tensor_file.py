"""State dicts in files of tensors: safetensors, .npz and torch's formats.

Kinds are told by content, not by name: safetensors, numpy's .npz, or a torch file, zip or older,
holding a plain state dict or a training checkpoint, of which `state_dict` chooses.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.storage.files import replacing
from rae_dit.weights.checkpoint_tree import Leaf, NamedTensor
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.state_dict import Weights, find_state_dict
from rae_dit.weights.torch_file import read_torch_file, write_torch_file
from rae_dit.weights.torch_legacy import is_legacy, read_legacy


class LazyTensors(Mapping[str, np.ndarray]):
    """Mapping from names to arrays, each read on access."""

    def __init__(self, tensors: Mapping[str, Leaf]):
        self.tensors = tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class SafeTensors(Mapping[str, np.ndarray]):
    """Lazy mapping for safetensors files: one, or the shards of an index."""

    def __init__(self, paths: list[Path]):
        from safetensors import SafetensorError, safe_open

        self.files: dict[str, Any] = {}
        for path in paths:
            try:
                file = safe_open(path, "numpy")
            except (SafetensorError, FileNotFoundError) as error:
                raise WeightsError(
                    f"{path} is not a whole safetensors file ({error}): fetch it again."
                ) from error
            self.files |= dict.fromkeys(file.keys(), file)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def open_tensors(path: str | Path, weights: Weights = "ema") -> Mapping[str, np.ndarray]:
    """Opens the state dict in a file: safetensors, a safetensors index, .npz, or torch's.

    Args:
        path: the file.
        weights: which of a training checkpoint's, see `find_state_dict`.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if the file is damaged, of another kind, or holds no state dict, or not the
            weights that are asked for.
    """
    path = Path(path)
    return LazyTensors(find_state_dict(read_content(path), path, weights))


def read_content(path: Path) -> Any:
    """Reads what a file holds, with a lazy tensor for every tensor; raises as `open_tensors`."""
    if path.name.endswith(".index.json"):
        shards = set(json.loads(path.read_text())["weight_map"].values())
        return flat(SafeTensors([path.parent / shard for shard in sorted(shards)]))
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # eight bytes of length, then the header
        return flat(SafeTensors([path]))
    if is_npz(path):
        return flat(np.load(path, allow_pickle=False))
    if is_legacy(path):
        return read_legacy(path)
    return read_torch_file(path)


def flat(file: Mapping[str, np.ndarray]) -> dict[str, NamedTensor]:
    """Returns the tensors of a flat file, none of them read."""
    return {name: NamedTensor(name, file) for name in file}


def is_npz(path: Path) -> bool:
    """Tells whether a file is a zip of .npy arrays only."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def save_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict of float32 tensors: safetensors or torch's zip, by the file's suffix.

    The file is there whole or not at all; missing folders are made.

    Raises:
        WeightsError: if the suffix is another.
    """
    match Path(path).suffix:
        case ".safetensors":
            from safetensors.numpy import save_file

            whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
            with replacing(Path(path)) as temporary:
                save_file(whole, temporary)
        case ".pt" | ".pth" | ".bin":
            with replacing(Path(path)) as temporary:
                write_torch_file(temporary, tensors)
        case suffix:
            raise WeightsError(
                f"Cannot write weights as {suffix!r}; end the name in .pt or .safetensors."
            )
