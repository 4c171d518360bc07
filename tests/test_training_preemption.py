"""A run that is asked to stop, and a run that learns nothing any more."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from support.run_processes import PATIENCE, ROOT, config_of, log_of, start, wait
from support.small_run import assert_trees_equal

from rae_dit.checkpoint.manager import restore_state
from rae_dit.modes.train import train
from rae_dit.setup.run import make_program
from rae_dit.training import loop
from rae_dit.training.history import DivergedError
from rae_dit.training.sharding import make_mesh

RARELY = {"checkpoint.save_every": 10**6, "metrics.log_every": 50, "metrics.validate_every": 10**6}


def state_of(path: Path):
    return restore_state(path, make_program(config_of({}), make_mesh(1)).abstract)


def test_sigterm_to_all_saves_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """As SLURM sends it: to the run and to its two data workers."""
    workdir, straight = tmp_path / "run", tmp_path / "straight"
    endless = RARELY | {"optim.max_steps": 10**6, "data.num_workers": 2}
    process = start(workdir, endless, devices=1, place=None)
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + PATIENCE
    try:
        while not metrics.exists() or not metrics.read_text():
            assert process.poll() is None, log_of(workdir, 0).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
    except BaseException:
        process.kill()
        raise
    wait(workdir, [process])  # with status 0
    (stopped,) = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    assert f"asked to stop: saved step {stopped} of 1000000" in log_of(workdir, 0).read_text()
    changes = RARELY | {"optim.max_steps": stopped + 3}
    wait(workdir, [start(workdir, changes, devices=1, place=None)])
    wait(straight, [start(straight, changes, devices=1, place=None)])
    assert f"continuing from step {stopped}" in log_of(workdir, 0).read_text()
    ours, theirs = state_of(workdir), state_of(straight)
    assert int(ours[0].step) == stopped + 3
    assert_trees_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


# A run that continues at step 100; the signal comes before or after it begins to listen.
NOTICE = """
import os, signal, subprocess, sys, time
import jax
import jax.numpy as jnp
from rae_dit.multihost import Preemption, initialize
def ask_to_stop():
    # From another process and in the middle of compiling, which does not return to Python.
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -TERM {os.getpid()}"])
    begun = time.monotonic()
    while time.monotonic() < begun + 2:
        jax.jit(lambda x: [x := jnp.sin(x) @ x for _ in range(40)])(jnp.ones((4, 4)))
initialize(None)
while_loading = sys.argv[1] == "loading"
with Preemption() as preemption:
    if while_loading:
        ask_to_stop()
    assert preemption.reached_before(100) == while_loading
    if not while_loading:
        ask_to_stop()
        assert preemption.reached(101)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""


@pytest.mark.parametrize("when", ["loading", "compiling"])
def test_no_notice_is_missed(when: str) -> None:
    command = [sys.executable, "-c", NOTICE, when]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE)


def test_a_run_of_bad_steps_ends_with_its_first_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 2, 4 and 5 are bad, and two in a row are allowed nowhere."""
    place, steps = loop.shard_batch, iter(range(1, 100))

    def place_bad_batch(batch, mesh):
        bad = next(steps) in (2, 4, 5)
        return place(batch | {"image": batch["image"] * np.float32(np.nan)} if bad else batch, mesh)

    monkeypatch.setattr(loop, "shard_batch", place_bad_batch)
    settings = {
        "checkpoint.save_every": 1,
        "metrics.validate_every": 1000,
        "optim.max_steps": 9,
        "optim.max_consecutive_bad_steps": 2,
    }
    with pytest.raises(DivergedError, match="at every step from 4 to 5;"):
        train(config_of(settings), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/skipped"] for line in lines] == [0, 1, 0, 1, 1]
    assert [line["train/bad_steps"] for line in lines] == [0, 1, 1, 2, 3]
    (state, _), (before, _) = (state_of(tmp_path / "checkpoints" / str(step)) for step in (4, 3))
    assert (int(state.bad_steps), int(state.last_good_step)) == (2, 3)
    for ours, theirs in ((state.params, before.params), (state.ema, before.ema)):
        assert_trees_equal(ours, theirs)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours))  # NaN equals NaN
