"""A run from outside: what it leaves, and that it cannot be told whether it was interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.compile_flags import CHEAP
from support.small_run import assert_trees_equal, small_config
from support.whole_run import SETTINGS, final_state, metric_lines

from rae_dit.data.position import ChangedDataError
from rae_dit.modes.train import train

ROOT = Path(__file__).parent.parent


def test_what_a_run_leaves(straight):
    assert json.loads((straight / "config.json").read_text())["optim"]["max_steps"] == 4
    assert sorted(p.name for p in (straight / "checkpoints").iterdir()) == ["1", "2", "3", "4"]
    account = json.loads((straight / "goodput.json").read_text())
    assert (account["reached"], account["steps"]) == (4, 3)  # the first one compiles
    for name in ("step", "start", "compile", "data_wait", "save", "validation"):
        assert account["seconds"][name] > 0, name
    assert list((straight / "tensorboard").glob("events*"))
    lines = metric_lines(straight)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"train/loss", "train/lr", "train/gradient_norm"} <= lines[0].keys()
    assert {"val/loss", "val_ema/loss"} <= lines[1].keys()


def test_two_steps_and_two_more_are_four_bit_for_bit(straight, tmp_path):
    train(small_config(**(SETTINGS | {"optim.max_steps": 2})), tmp_path)
    config = small_config(**SETTINGS)
    train(config, tmp_path)
    ours, theirs = final_state(tmp_path, config), final_state(straight, config)
    assert int(ours[0].step) == 4
    assert_trees_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    assert metric_lines(tmp_path)[2:] == metric_lines(straight)[2:]


def test_restore_from_another_run(straight, tmp_path):
    settings = SETTINGS | {"checkpoint.restore_from": str(straight / "checkpoints" / "3")}
    config = small_config(**settings)
    train(config, tmp_path)
    assert_trees_equal(final_state(tmp_path, config)[0], final_state(straight, config)[0])
    assert [line["step"] for line in metric_lines(tmp_path)] == [4]


def test_own_checkpoints_come_before_restore_from(straight, tmp_path):
    train(small_config(**(SETTINGS | {"optim.max_steps": 2})), tmp_path)
    settings = SETTINGS | {"checkpoint.restore_from": str(straight), "optim.max_steps": 3}
    train(small_config(**settings), tmp_path)
    assert [line["step"] for line in metric_lines(tmp_path)] == [1, 2, 3]


def test_other_data_order_is_refused(straight):
    with pytest.raises(ChangedDataError, match="seed"):
        train(small_config(**(SETTINGS | {"seed": 1, "optim.max_steps": 5})), straight)


def test_a_finished_run_has_nothing_to_do(straight):
    before = metric_lines(straight)
    train(small_config(**SETTINGS), straight)
    assert metric_lines(straight) == before


def start(workdir, max_steps):
    """The run's command in a process of its own, on one device."""
    workdir.mkdir(exist_ok=True)
    arguments = [
        sys.executable,
        "-m",
        "rae_dit.main",
        f"--config={ROOT / 'configs' / 'dit_dummy.py'}",
        f"--workdir={workdir}",
        f"--config.optim.max_steps={max_steps}",
        "--config.checkpoint.save_every=1",
        "--config.metrics.log_every=1",
        "--config.metrics.validate_every=1000",
    ]
    environment = os.environ | {"XLA_FLAGS": CHEAP}
    with (workdir / "log").open("a") as output:
        return subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=output, stdout=output)


@pytest.mark.parametrize("lines_before_the_kill", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_and_run_again(tmp_path, lines_before_the_kill):
    """SIGKILL while steps and writes are under way; the same command goes on from the disk."""
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    process = start(killed, max_steps=200)
    metrics = killed / "metrics.jsonl"
    try:
        deadline = time.monotonic() + 240
        while not metrics.exists() or metrics.read_text().count("\n") < lines_before_the_kill:
            assert process.poll() is None, (killed / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    on_disk = [int(p.name) for p in (killed / "checkpoints").iterdir() if p.name.isdigit()]
    last = max(on_disk, default=0) + 3
    for workdir in (killed, straight):
        assert start(workdir, last).wait(timeout=240) == 0, (workdir / "log").read_text()
    if on_disk:
        assert f"continuing from step {max(on_disk)}" in (killed / "log").read_text()
    config = small_config(**{"optim.max_steps": last})
    assert_trees_equal(final_state(killed, config)[0], final_state(straight, config)[0])
    assert metric_lines(killed) == metric_lines(straight)
    assert [line["step"] for line in metric_lines(killed)] == list(range(1, last + 1))
