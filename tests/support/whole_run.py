"""A whole run through the training loop, and what it leaves."""

import json

from rae_dit.checkpoint.manager import restore_state
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh

SETTINGS = {
    "optim.max_steps": 4,
    "checkpoint.save_every": 1,
    "checkpoint.keep_last": 10,
    "metrics.log_every": 1,
    "metrics.validate_every": 2,
    "metrics.validate_batches": 1,
    "metrics.telemetry": False,
}


def final_state(workdir, config, step=None):
    """Restores the state of the newest step, or of `step`, and what was saved beside it."""
    path = workdir if step is None else workdir / "checkpoints" / str(step)
    return restore_state(path, make_program(config, make_mesh(1)).abstract)


def metric_lines(workdir):
    """Metrics without the clock's."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "goodput/"))}
        for line in lines
    ]
