"""A few cases of the campaign on damaged weights, and that it notices what it looks for."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CASES = 6  # of each of 11 kinds
SEED = 1

# argv: directory. Prints what the campaign says of readers that do each thing that must not happen.
BAD_READERS = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from launch.campaigns import damaged_weights
from rae_dit.weights.errors import WeightsError

def raises(error):
    raise error

damaged_weights.SECONDS = 0.1
readers = {
    "one line": lambda path: raises(WeightsError(f"{path} is damaged.")),
    "two lines": lambda path: raises(WeightsError(f"{path} is\\ndamaged.")),
    "no name": lambda path: raises(WeightsError("damaged.")),
    "raw error": lambda path: raises(KeyError("w")),
    "runs": lambda path: {"w": os.system("true")},
    "writes": lambda path: {"w": len(open("written", "w").name)},
    "imports": lambda path: {"w": len(__import__("colorsys").__name__)},
    "slow": lambda path: {"w": time.sleep(5)},
    "fills memory": lambda path: {"w": np.zeros(1 << 23)},
    "same": lambda path: damaged_weights.arrays(),
    "other": lambda path: damaged_weights.arrays() | {"bias": 0},
}
path = Path(sys.argv[1]) / "case1.pt"
path.write_bytes(b"x")
os.chdir(path.parent)
with damaged_weights.watch() as events:
    found = {}
    for name, reader in readers.items():
        signal.setitimer(signal.ITIMER_REAL, damaged_weights.SECONDS)
        found[name] = damaged_weights.judge(path, reader, events)[0]
        signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps(found))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_damaged_files_end_in_one_line_or_in_numbers(tmp_path: Path) -> None:
    script = "launch/campaigns/damaged_weights.py"
    output = tmp_path / "damaged"
    ended = run(script, f"--cases={CASES}", f"--seed={SEED}", f"--output={output}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads((output / "report.json").read_text()) == {"cases": 11 * CASES, "problems": []}


def test_the_campaign_notices_what_it_looks_for(tmp_path: Path) -> None:
    ended = run("-c", BAD_READERS, str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "one line": "one line",
        "two lines": "raw error",
        "no name": "raw error",
        "raw error": "raw error",
        "runs": "code",
        "writes": "code",
        "imports": "code",
        "slow": "slow",
        "fills memory": "memory",
        "same": "same numbers",
        "other": "other numbers",
    }
