"""Files made to do harm: each ends in one line, in a process that may take little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.hostile_files import write_hostile_files

ROOT = Path(__file__).parent.parent
MEGABYTES = 400  # beside the 150 that the process has before

PACKED = ("packed.npz", "packed pickle.pt", "packed storage.pt")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    files = directory / "files"
    files.mkdir()
    paths = list(write_hostile_files(files))
    script = ROOT / "tests/support/read_hostile.py"
    output = subprocess.run(
        [sys.executable, str(script), str(files), str(MEGABYTES)],
        capture_output=True,
        check=True,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )
    found = json.loads(output.stdout)
    assert found.keys() == {path.name for path in paths}
    return found, {path.name for path in directory.iterdir()}


def test_every_hostile_file_ends_in_one_line(outcomes):
    found, _ = outcomes
    wrong = {
        name: outcome
        for name, outcome in found.items()
        if not outcome.startswith("WeightsError: ") or "\n" in outcome
    }
    assert wrong == {}
    assert all("unpacks to" in found[name] or "compressed" in found[name] for name in PACKED)
    assert all(name in outcome for name, outcome in found.items())
    assert not [outcome for outcome in found.values() if "MemoryError" in outcome]


def test_no_code_was_run(outcomes):
    _, written = outcomes
    assert written == {"files"}
