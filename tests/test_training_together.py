"""Two processes decide alike: when a loss is a spike, what is the best step, who draws."""

import json
from pathlib import Path

import pytest
from run_processes import config_of, log_of, start_pair, wait

from rae_dit.training.loop import train

pytestmark = pytest.mark.slow

SETTINGS = {
    "optim.spike_factor": 1.02,  # so low that this run goes back twice by itself
    "optim.spike_window": 2,
    "optim.max_steps": 6,
    "checkpoint.save_every": 1,
    "checkpoint.keep_last": 1,
    "checkpoint.best_metric": "val/loss",
    "checkpoint.best_mode": "max",
    "metrics.validate_every": 2,
    "metrics.sample_every": 3,
}


def lines(workdir: Path) -> list[dict[str, float]]:
    """Metrics without the clock's."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in found]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_processes_are_one(tmp_path: Path) -> None:
    pair, alone = tmp_path / "pair", tmp_path / "alone"
    processes = start_pair(pair, SETTINGS)
    train(config_of(SETTINGS), alone)
    wait(pair, processes)
    ours, theirs = lines(pair), lines(alone)
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    for line, other in zip(ours, theirs, strict=True):
        assert line == pytest.approx(other, rel=1e-4)
    assert ours[-1]["train/rollbacks"] > 0
    assert "is a spike: back to step" in log_of(pair, 0).read_text()
    assert names(pair / "checkpoints") == names(alone / "checkpoints")
    best, same = (json.loads((w / "checkpoints" / "best.json").read_text()) for w in (pair, alone))
    assert (best["step"], best["value"]) == (same["step"], pytest.approx(same["value"], rel=1e-4))
    assert (pair / "checkpoints" / str(best["step"])).is_dir()
    assert names(pair / "pictures") == ["step_3.png", "step_6.png"]
