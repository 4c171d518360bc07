"""A run of four steps, stopped at two, with everything switched on that looks at it; a program.

It is a process of its own because it records a profiler trace: with a tracer at work, two of five
runs of the slow tests ended in a segmentation fault, which took all tests after it with them.

    python watched_run.py WORKDIR RECORD
"""

import importlib.machinery
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
LOOKS = {
    "metrics.telemetry": True,
    "metrics.sample_every": 3,  # and at the last steps, 2 and 4
    "metrics.profile_step": 2,
    "metrics.profile_steps": 2,
    "metrics.wandb_project": "digits",
    "checkpoint.best_metric": "val_ema/loss",
    "checkpoint.best_mode": "max",  # so that it is not the last step
    "checkpoint.keep_last": 1,
    "checkpoint.save_every": 100,
    "optim.max_epochs": 4 / 128,  # of 1024 images in batches of 8
    "optim.max_steps": 1000,
}


class Wandb:
    """Stands in for the package, and for one run of it."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.finished = 0

    def Image(self, pixels):
        """Returns the pixels."""
        return pixels

    def init(self, **arguments):
        """Records the start of a run."""
        self.started.append(arguments)
        return self

    def define_metric(self, name, step_metric):
        """Checks that every metric goes by the step."""
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        """Records logged values."""
        self.logged.append(values)

    def finish(self):
        """Records the end of a run."""
        self.finished += 1


def watch(workdir: Path, record: Path) -> Wandb:
    """Makes the run in a process of its own; returns what Weights & Biases was given.

    Raises:
        AssertionError: the process failed or was killed; with the end of its output, which has a
            stack of every thread if it was a segmentation fault.
    """
    command = [sys.executable, "-X", "faulthandler", "-m", "support.watched_run"]
    result = subprocess.run(
        [*command, str(workdir), str(record)],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, f"status {result.returncode}\n{result.stdout[-8000:]}"
    started, logged, finished = pickle.loads(record.read_bytes())
    wandb = Wandb()
    wandb.started, wandb.logged, wandb.finished = started, logged, finished
    return wandb


def main() -> None:
    """Makes the run and writes the record."""
    from rae_dit.modes.train import train
    from support.small_run import small_config
    from support.whole_run import SETTINGS

    workdir, record = map(Path, sys.argv[1:])
    wandb = Wandb()
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    sys.modules["wandb"] = wandb
    for epochs in (2 / 128, 4 / 128):
        train(small_config(**(SETTINGS | LOOKS | {"optim.max_epochs": epochs})), workdir)
    record.write_bytes(pickle.dumps((wandb.started, wandb.logged, wandb.finished)))


if __name__ == "__main__":
    main()
