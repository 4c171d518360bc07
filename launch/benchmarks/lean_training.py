"""Training in this process without checkpoints and logs, for runs whose losses are compared.

A step, its batches and its random numbers are those of `rae_dit.main`, so the losses of a run are,
too. Runs that differ only by their seed share one compiled step, by `Run._replace`.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rae_dit.config import Config
from rae_dit.setup import models
from rae_dit.training.history import History
from rae_dit.training.progress import Throttle
from rae_dit.training.run import Run, initial_state, train_stream
from rae_dit.training.sharding import shard_batch
from rae_dit.training.state import TrainState

SKIPPED_OF_RATE = 20  # steps: the first compile, and start the loader


class Trained(NamedTuple):
    """A run's end.

    Attributes:
        state: of the last step.
        lines: one a step, {"step", "train/loss", "train/gradient_norm"}.
        seconds_per_step: without the first steps.
    """

    state: TrainState
    lines: list[dict[str, float]]
    seconds_per_step: float


def read_batches(run: Run) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of a run's steps."""
    with train_stream(run, 0, History()) as batches:
        yield from itertools.islice(batches, run.config.optim.max_steps)


def train(run: Run, batches: Iterable[dict[str, np.ndarray]]) -> Trained:
    """Takes all steps of a new run.

    Args:
        run: with a program that may be another's.
        batches: of `read_batches` of a run of the same data and seed.
    """
    throttle, found = Throttle(), []
    begun = time.perf_counter()
    with matmul_precision(run.config):
        state = initial_state(run)
        for number, batch in enumerate(batches):
            if number == SKIPPED_OF_RATE:
                begun = time.perf_counter()
            state, metrics = run.program.step(state, run.frozen, shard_batch(batch, run.mesh))
            throttle.add(metrics["loss"])
            found.append((metrics["loss"], metrics["gradient_norm"]))
        values = jax.device_get(found)
    seconds = (time.perf_counter() - begun) / max(1, len(values) - SKIPPED_OF_RATE)
    lines = [
        {"step": number, "train/loss": float(loss), "train/gradient_norm": float(norm)}
        for number, (loss, norm) in enumerate(values, 1)
    ]
    return Trained(state, lines, seconds)


@contextlib.contextmanager
def matmul_precision(config: Config) -> Iterator[None]:
    """Sets the precision of float32 products that the config asks for."""
    with jax.default_matmul_precision(models.matmul_precision(config)):
        yield


def write_lines(path: Path, lines: Sequence[dict]) -> None:
    """Writes one JSON object a line, all or none."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(partial, path)
