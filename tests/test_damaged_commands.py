"""The campaign through the command line notices what must not happen, and damaged files do not."""

import json
import subprocess
import sys
from pathlib import Path

from launch.campaigns.commands import Ended, judge

ROOT = Path(__file__).parent.parent

# argv: directory. Damaged files through commands that compile nothing, and one that fails.
SHORT = """
import json, random, sys
from pathlib import Path
from launch.campaigns import commands, damaged_commands
from launch.campaigns.damage import KINDS, write_files

root = Path(sys.argv[1])
sound = write_files(root / "sound") if (root / "sound").mkdir() is None else {}
commands.import_all()
found = []
for number, (kind, path) in enumerate(sound.items()):
    damaged = root / f"case{number}{path.suffix}"
    damaged.write_bytes(KINDS[kind][1](path.read_bytes(), random.Random(kind)))
    command = ["inspect", str(damaged)]
    if number % 2:
        command = ["export-ddt", str(damaged), str(root / "out.safetensors")]
    found.append(commands.judge(commands.run_command("rae_dit.weights", command, root)))
(root / "a").mkdir()
found.append(commands.judge(damaged_commands.try_config(3, root / "a")[1]))
found.append(commands.judge(commands.run_command("rae_dit.main", ["--flagfile=/nowhere"], root)))

def fail():
    raise KeyError("of ours")

found.append(commands.judge(commands.run_command("rae_dit.weights", ["inspect"], root, fail)))
print(json.dumps(found))
"""


def test_commands_end_in_one_line_or_well(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    *outcomes, failed = json.loads(ended.stdout.splitlines()[-1])
    assert set(outcomes) == {"refused", "accepted"}
    assert failed.startswith("FAILED: status 1: Traceback")


def test_what_is_a_failure() -> None:
    assert judge(Ended(0, "10:00:00 step 1\n")) == "accepted"
    assert judge(Ended(2, "10:00:00 log\nrae_dit: x: got 1; expected 2\n")) == "refused"
    for status, said in (
        (1, "rae_dit: x"),
        (-9, ""),
        (2, "usage: weights"),
        (2, "rae_dit: x: got KeyError; expected none here; traceback in /tmp/t"),
        (0, "Traceback (most recent call last):\n"),
    ):
        assert judge(Ended(status, said)).startswith("FAILED")
