"""Three kills of the campaign, and that its comparison would have noticed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.compile_flags import CHEAP
from support.training_states import biggest_file, flip_byte

from launch.campaigns.kill_lane import KEEP_LAST, ROOT
from launch.campaigns.killed_run import RunComparison, committed


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three kills leave behind; starts take less without tensorflow and optimised programs."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "tensorflow.py").write_text("raise ImportError('not in this test')\n")
    environment = os.environ | {
        "XLA_FLAGS": CHEAP,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(folder),
    }
    script = [sys.executable, str(ROOT / "launch" / "campaigns" / "kill_campaign.py")]
    options = ["--kills=3", "--seed=1", "--workers=0", f"--output={folder / 'campaign'}"]
    ended = subprocess.run(
        [*script, *options], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing was lost, damaged or different" in ended.stdout
    return folder / "campaign"


def test_three_kills_lose_nothing(campaign: Path) -> None:
    report = json.loads((campaign / "report.json").read_text())
    assert (len(report["lives"]), report["problems"]) == (3, [])
    assert any(life["in_a_write"] for life in report["lives"])
    assert report["lives"][-1]["newest_step"] > 0


@pytest.fixture(scope="module")
def comparison(campaign: Path) -> RunComparison:
    return RunComparison(campaign / "reference", KEEP_LAST)


def cut_metrics(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))


def drop_line(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))


def spoil_line(run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1\n')


def empty_config(run: Path) -> None:
    (run / "config.json").write_text("")


def lose_newest(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / str(committed(run)[-1]))


def lose_part_of_newest(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / str(committed(run)[-1]) / "ema")


def flip_older(run: Path) -> None:
    flip_byte(biggest_file(run / "checkpoints" / str(committed(run)[-2]) / "train"))


def swap_steps(run: Path) -> None:
    older, newest = (run / "checkpoints" / str(step) for step in committed(run)[-2:])
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


def set_aside(run: Path) -> None:
    (run / "checkpoints" / "quarantined-2-0").mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_metrics, "is on disk, but the metrics end at"),
        (drop_line, "lines of metrics are not those"),
        (spoil_line, "unreadable"),
        (empty_config, "unreadable"),
        (lose_newest, "was on disk, now"),
        (lose_part_of_newest, "cannot be restored"),
        (flip_older, "cannot be restored"),
        (swap_steps, "is not that of the uninterrupted run"),
        (set_aside, "set aside"),
    ],
)
def test_the_comparison_sees(
    campaign: Path,
    comparison: RunComparison,
    tmp_path: Path,
    harm: Callable[[Path], None],
    message: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(campaign / "lane_0" / "run", run)
    newest = committed(run)[-1]
    assert comparison.problems_at_the_end(run, newest) == []
    harm(run)
    assert any(message in problem for problem in comparison.problems(run, newest))
