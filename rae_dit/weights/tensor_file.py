"""State dicts in files of tensors: safetensors, .npz and torch's formats.

Kinds are told by content, not by name: safetensors, numpy's .npz, or a torch file, zip or older,
holding a plain state dict or a training checkpoint. Of a checkpoint the EMA is taken when there is
one; the choice is logged.
"""

import json
import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.storage.files import replacing
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.torch_file import LazyTensor, read_torch_file, write_torch_file
from rae_dit.weights.torch_legacy import is_legacy, read_legacy

log = logging.getLogger(__name__)

CHOICES = ("ema", "ema_model", "model_ema", "model", "state_dict")  # the first found is taken
WRAPPERS = ("_orig_mod", "module", "net", *CHOICES)  # prefixes that wrappers add to all names


class LazyTensors(Mapping[str, np.ndarray]):
    """Mapping from names to arrays, each read on access."""

    def __init__(self, tensors: Mapping[str, LazyTensor]):
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


def open_tensors(path: str | Path) -> Mapping[str, np.ndarray]:
    """Opens the state dict in a file: safetensors, a safetensors index, .npz, or torch's.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if the file is damaged, of another kind, or holds no state dict.
    """
    path = Path(path)
    if path.name.endswith(".index.json"):
        shards = set(json.loads(path.read_text())["weight_map"].values())
        return SafeTensors([path.parent / shard for shard in sorted(shards)])
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # eight bytes of length, then the header
        return SafeTensors([path])
    if is_npz(path):
        return np.load(path, allow_pickle=False)
    if is_legacy(path):
        return LazyTensors(find_state_dict(read_legacy(path), path))
    return LazyTensors(find_state_dict(read_torch_file(path), path))


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


def find_state_dict(content: Any, path: Path) -> dict[str, LazyTensor]:
    """Finds the state dict in the content of a torch file, without wrappers' prefixes.

    Raises:
        WeightsError: if there is none.
    """
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict.")
    if all(isinstance(value, LazyTensor) for value in content.values()):
        return strip_wrappers(content, path)
    for choice in CHOICES:
        if choice in content and isinstance(content[choice], dict):
            log.warning("%s: taking '%s' of %s", path, choice, sorted(map(str, content)))
            return find_state_dict(content[choice], path)
    raise WeightsError(
        f"{path} holds no state dict: its keys are {sorted(map(str, content))[:20]}, and none of "
        f"{list(CHOICES)} holds tensors."
    )


def strip_wrappers(tensors: dict[str, LazyTensor], path: Path) -> dict[str, LazyTensor]:
    """Strips prefixes of wrappers such as "module.", "model." and "ema.".

    Lightning files hold several modules side by side; then the first of `CHOICES` is taken and
    the rest, such as a discriminator, is left, which is logged.
    """
    heads = {name.partition(".")[0] for name in tensors}
    for wrapper in (*CHOICES, *WRAPPERS):
        if wrapper not in heads:
            continue
        if heads != {wrapper}:
            log.warning("%s: taking '%s.*' of %s", path, wrapper, sorted(heads))
        start = f"{wrapper}."
        inner = {
            name.removeprefix(start): tensor
            for name, tensor in tensors.items()
            if name.startswith(start)
        }
        return strip_wrappers(inner, path)
    return tensors
