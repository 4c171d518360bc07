"""Packs a reference's recorded training steps for the repository: parameters as changes, in LZMA.

`after_4/NAME`, a parameter after four steps, becomes `change_4/NAME`, the difference to where it
started, and `ema_16/NAME` becomes `ema_change_16/NAME`. The difference of two close float32 numbers
is exact, has few digits, and is what distances are measured in. numpy.load reads LZMA as it does
any npz.

    PYTHONPATH=. python tests/golden/make_trajectories.py GOLDEN RECORDED OUTPUT

GOLDEN has the files that the trajectories start from, RECORDED the .npz and .json of each.
"""

import io
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rae_dit.weights.tensor_file import open_tensors

STATE = re.compile(r"(after|ema)_(\d+)/(.+)")


def start(golden: Path, settings: dict) -> Mapping[str, np.ndarray]:
    """All tensors before the first step, by the recording's names."""
    if "model_file" in settings:
        return open_tensors(golden / settings["model_file"])
    files = {"decoder": golden / settings["decoder"] / "model.pt"}
    files["heads"] = golden / settings["heads"]
    return {
        f"{part}/{name}": tensor
        for part, path in files.items()
        for name, tensor in open_tensors(path).items()
    }


def pack(golden: Path, recorded: Path, output: Path) -> None:
    """Writes one trajectory."""
    before = start(golden, json.loads(recorded.with_suffix(".json").read_text()))
    with np.load(recorded) as arrays, zipfile.ZipFile(output, "w", zipfile.ZIP_LZMA) as archive:
        for name, value in arrays.items():
            if match := STATE.fullmatch(name):
                kind, step, parameter = match.groups()
                name = f"{'change' if kind == 'after' else 'ema_change'}_{step}/{parameter}"
                value = value - before[parameter]
            content = io.BytesIO()
            np.save(content, value)
            archive.writestr(f"{name}.npy", content.getvalue())
    shutil.copy(recorded.with_suffix(".json"), output.with_suffix(".json"))


if __name__ == "__main__":
    golden, recorded, output = map(Path, sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(recorded.glob("*.npz")):
        pack(golden, path, output / path.name)
