"""measure.py keeps results, passes over what is done, begins nothing that cannot end."""

import json
import shlex
from pathlib import Path

import pytest

from launch.benchmarks import measure
from launch.benchmarks.measure import Measurement

GOOD = Measurement("good", """-c 'print("{\\"part\\": 1}"); print("words")'""", 1)
BAD = Measurement("bad", "-c 'raise SystemExit(3)'", 1)
GPUS = "import os; print('{\"gpus\": \"%s\"}' % os.environ['CUDA_VISIBLE_DEVICES'])"
SEEN = Measurement("seen", f"-c {shlex.quote(GPUS)}", 1, gpus=2)
LONG = Measurement("long", "-c 'raise SystemExit(4)'", 1000)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = tmp_path / "measured.jsonl"
    monkeypatch.setattr(measure, "SETS", {"all": [GOOD, BAD, SEEN, LONG]})

    def main() -> list[dict]:
        monkeypatch.setattr("sys.argv", ["measure.py", "--output", str(output), "--seconds", "60"])
        measure.main()
        return [json.loads(line) for line in output.read_text().splitlines()]

    return main


def test_lines_are_filed_by_name(run) -> None:
    lines = run()
    assert [line["measurement"] for line in lines] == ["good", "good", "bad", "seen", "seen"]
    assert lines[0] == {"measurement": "good", "part": 1}
    assert [line["status"] for line in lines if "status" in line] == [0, 3, 0]
    assert lines[3] == {"measurement": "seen", "gpus": "0,1"}


def test_only_what_ended_well_is_passed_over(run, capsys: pytest.CaptureFixture[str]) -> None:
    first = run()
    lines = run()[len(first) :]
    assert [line["measurement"] for line in lines] == ["bad"]
    assert "good: is in" in capsys.readouterr().out


def test_what_would_not_end_in_time_is_not_begun(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(line["measurement"] != "long" for line in run())
    assert "long: left for later, takes about 1000 s" in capsys.readouterr().out


def test_every_command_names_files_that_exist() -> None:
    for each in (each for measurements in measure.SETS.values() for each in measurements):
        for word in each.command.split():
            path = word.removeprefix("--config=")
            if path.endswith(".py"):
                assert (measure.ROOT / path).exists(), each
