"""File of unfinished latent statistics, from which a stopped job continues."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from rae_dit.config import ConfigError
from rae_dit.evaluation.latent_statistics import Totals
from rae_dit.provenance import Provenance
from rae_dit.storage.files import write_bytes

# Names of sums in files written until November 2026.
OLD_NAMES = {
    "strange": "num_invalid",
    "value": "sum_q",
    "high": "sum_aa",
    "mixed": "sum_ab",
    "low": "sum_bb",
}


def write_partial(path: Path, totals: Totals, *, done: int, provenance: Provenance) -> None:
    """Writes totals and their provenance, atomically.

    Args:
        path: a .npz file.
        totals: as numpy arrays, or arrays that this process can read.
        done: records processed, in order from the first.
        provenance: everything that the totals depend on.
    """
    sums = {name: np.asarray(leaf) for name, leaf in totals._asdict().items()}
    buffer = io.BytesIO()
    text = json.dumps(provenance.values)
    np.savez(buffer, allow_pickle=False, done=done, provenance=text, **sums)
    write_bytes(path, buffer.getvalue())


def read_partial(path: Path, provenance: Provenance) -> tuple[Totals, int]:
    """Reads the totals, as numpy arrays, and the number of records processed.

    Raises:
        ConfigError: the file is damaged or of other settings; names them.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {OLD_NAMES.get(name, name): array for name, array in file.items()}
        found = json.loads(str(arrays.pop("provenance")))
        done = int(arrays.pop("done"))
        totals = Totals(**arrays)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: damaged ({reason}); delete it to start over") from error
    remedy = "Use the old settings to finish it, delete it to start over, or use another workdir"
    provenance.require_same(found, str(path), remedy)
    return totals, done
