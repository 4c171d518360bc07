"""Header of the files of weights that this project writes: what their tensors do not tell.

It is `__metadata__` of a safetensors file and an extra file in torch's zip (`extra/`, where torch
keeps such), so that the state dict is the official one, name for name. Other files have none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rae_dit.architecture import DDTArchitecture
from rae_dit.weights.errors import WeightsError, reading
from rae_dit.weights.safetensors_file import LENGTH_BYTES, is_safetensors
from rae_dit.weights.stored_zip import StoredZip

NAME = "rae_dit.json"
ENTRY = f"extra/{NAME}"
LIMIT = 2**16  # bytes


def write_header(facts: Mapping[str, Any]) -> str:
    """Returns the text of a header."""
    return json.dumps(facts, sort_keys=True)


def read_header(path: Path) -> dict[str, Any]:
    """Reads the header of a file; {} of a file that this project did not write.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the header is damaged.
    """
    with reading(path):
        text = find_header(path)
        facts = {} if text is None else json.loads(text)
        if not isinstance(facts, dict):
            raise WeightsError(
                f"{path}: got a header of {type(facts).__name__}; expected an object"
            )
        return facts


def find_header(path: Path) -> str | bytes | None:
    """Finds the text of a file's header."""
    if path.is_dir():  # of a distributed checkpoint
        return None
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES + 1)
        if is_safetensors(start):
            length = int.from_bytes(start[:LENGTH_BYTES], "little")
            if length > path.stat().st_size:
                return None  # damaged: the reader of tensors says so
            file.seek(LENGTH_BYTES)
            metadata = json.loads(file.read(length)).get("__metadata__") or {}
            text = metadata.get(NAME)
            return text if isinstance(text, str) else None
        if not start.startswith(b"PK"):
            return None
        archive = StoredZip(file, path)
        entries = [name for name in archive.names() if name.endswith(f"/{ENTRY}")]
        if len(entries) != 1 or archive.size(entries[0]) > LIMIT:
            return None
        return archive.read(entries[0])


def pair(value: Sequence[int]) -> tuple[int, int]:
    """Returns the two numbers of a JSON list."""
    first, second = value
    return int(first), int(second)


# What the tensors of a DiT^DH may not tell, and how it is read from JSON.
UNTOLD: dict[str, Callable[[Any], Any]] = {
    "input_size": int,
    "depth": pair,
    "num_heads": pair,
    "mlp_ratio": float,
    "base_depth": int,
    "prediction": str,
}
# Newer than the first headers.
LATER = ("prediction",)


def ddt_facts(architecture: DDTArchitecture) -> dict[str, Any]:
    """Returns what the tensors of a DiT^DH may not tell: the arguments of `ddt_architecture`."""
    return {name: getattr(architecture, name) for name in UNTOLD}


def read_ddt_facts(header: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what `ddt_facts` gave from the header of a file; {} of a header without.

    An older version wrote less: what is in `LATER` may be missing.

    Raises:
        WeightsError: the header is damaged.
    """
    facts = header.get("ddt", {})
    try:
        return {
            name: convert(facts[name])
            for name, convert in UNTOLD.items()
            if facts and (name in facts or name not in LATER)
        }
    except (TypeError, ValueError, LookupError) as error:
        raise WeightsError(f"header: got {facts!r}; expected {', '.join(UNTOLD)}") from error
