"""State dicts in files of tensors: safetensors, .npz and torch's formats.

Kinds are told by content, not by name: safetensors, numpy's .npz, or a torch file, zip or older,
holding a plain state dict or a training checkpoint, of which `state_dict` chooses.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from rae_dit.storage.files import replacing
from rae_dit.storage.places import place
from rae_dit.storage.reading import local_copy
from rae_dit.weights.checkpoint_tree import Leaf
from rae_dit.weights.directory import contents
from rae_dit.weights.distributed_checkpoint import is_distributed, read_distributed
from rae_dit.weights.errors import WeightsError, complete, naming, refuse_pointer
from rae_dit.weights.header import NAME, write_header
from rae_dit.weights.npz_file import is_npz, read_npz
from rae_dit.weights.safetensors_file import is_safetensors, read_safetensors
from rae_dit.weights.shard_index import read_index
from rae_dit.weights.state_dict import Weights, find_state_dict
from rae_dit.weights.torch_file import read_torch_file, write_torch_file
from rae_dit.weights.torch_legacy import is_legacy, read_legacy

MAX_NAME = 1000  # characters
LAYER_DIGITS = 4


class LazyTensors(Mapping[str, np.ndarray]):
    """Mapping from names to arrays, each read on access; errors name the file and the tensor."""

    def __init__(self, tensors: Mapping[str, Leaf], path: Path):
        self.tensors = tensors
        self.path = path

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        try:
            return tensor.read()
        except WeightsError as error:
            if str(self.path) in str(error):
                raise
            raise WeightsError(complete(self.path, f"{name}: {error}")) from error

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without reading it; raises as reading one that cannot."""
        tensor = self.tensors[name]
        return tensor.shape if tensor.readable else self[name].shape

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __contains__(self, name: object) -> bool:  # Mapping's reads the tensor
        return name in self.tensors

    def __len__(self) -> int:
        return len(self.tensors)


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
    path = local_copy(path)
    found = find_state_dict(read_content(path), path, weights)
    check_names(found, path)
    return LazyTensors(found, path)


def read_content(path: Path) -> Any:
    """Reads what a file holds, with a lazy tensor for every tensor; raises as `open_tensors`."""
    if is_distributed(path):
        return read_distributed(path)
    if path.is_dir():
        raise WeightsError(f"{path}: got {contents(path)}; expected a file of weights")
    with naming(path):
        refuse_pointer(path)
        with path.open("rb") as file:
            start = file.read(9)
        if path.suffix == ".json":
            return read_index(path, read_content)
        if is_safetensors(start):
            return read_safetensors(path)
        if is_npz(path):
            return read_npz(path)
        return read_legacy(path) if is_legacy(path) else read_torch_file(path)


def check_names(names: Iterable[str], path: Path) -> None:
    """Refuses names that no network has: architectures are read off them.

    Raises:
        WeightsError: a name is not printable or endless, or numbers more layers than can be.
    """
    for name in names:
        numbers = [part for part in name.split(".") if part.isdigit()]
        if not name.isprintable() or len(name) > MAX_NAME:
            raise WeightsError(f"{path}: got a tensor named {name!r:.80}; expected a plain name")
        if any(len(number) > LAYER_DIGITS for number in numbers):
            raise WeightsError(
                f"{path}: got a tensor named {name!r}; expected at most {10**LAYER_DIGITS:,} layers"
            )


def save_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None
) -> None:
    """Writes a state dict of float32 tensors: safetensors or torch's zip, by the file's suffix.

    The file is there whole or not at all; missing folders are made.

    Args:
        path: the file, in .safetensors or .pt.
        tensors: the state dict.
        facts: JSON values for the file's header, which `header.read_header` reads.

    Raises:
        WeightsError: if the suffix is another.
    """
    header = {} if facts is None else {NAME: write_header(facts)}
    match PurePath(path).suffix:
        case ".safetensors":
            from safetensors.numpy import save_file

            whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
            with replacing(place(path)) as temporary:
                save_file(whole, temporary, header)
        case ".pt" | ".pth" | ".bin":
            with replacing(place(path)) as temporary:
                write_torch_file(temporary, tensors, header)
        case suffix:
            raise WeightsError(f"{path}: got {suffix!r}; expected a name in .pt or .safetensors")
