"""Latent statistics that are not finished: what a job that was stopped leaves for the next."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rae_dit.config import ConfigError
from rae_dit.evaluation.latent_statistics import Totals
from rae_dit.storage.files import write_bytes


def write_partial(path: Path, totals: Totals, *, done: int, provenance: Mapping[str, Any]) -> None:
    """Writes totals and what they are of, atomically.

    Args:
        path: a .npz file.
        totals: as numpy arrays, or arrays that this process can read.
        done: records gone through, in order from the first.
        provenance: JSON values; everything that the totals depend on.
    """
    sums = {name: np.asarray(leaf) for name, leaf in totals._asdict().items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, done=done, provenance=json.dumps(provenance), **sums)
    write_bytes(path, buffer.getvalue())


def read_partial(path: Path, provenance: Mapping[str, Any]) -> tuple[Totals, int]:
    """Reads what `write_partial` wrote: totals as numpy arrays, and records done.

    Raises:
        ConfigError: the file is damaged, or of other settings; says which.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        found = json.loads(str(arrays.pop("provenance")))
        done = int(arrays.pop("done"))
        totals = Totals(**arrays)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: damaged ({reason}); delete it to begin anew") from error
    here, there = flat(provenance), flat(found)
    changes = [
        f"{name} was {there.get(name)!r} and is {here.get(name)!r}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    if changes:
        raise ConfigError(
            f"{path}: got statistics of other settings, {'; '.join(changes)}. Finish them with the "
            "old settings, delete the file to begin anew, or use another workdir"
        )
    return totals, done


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted name, tuples as the lists that JSON makes of them."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{below}": leaf for below, leaf in flat(value).items()}
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found
