"""First calls of several programs at once: XLA compiles in threads, each on a core of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import jax

from launch.benchmarks import timing
from rae_dit.config import Config
from rae_dit.setup import models
from rae_dit.training.sharding import mesh_context

Result = TypeVar("Result")
THREADS = 12


def at_once(
    config: Config, mesh: jax.sharding.Mesh, tasks: Sequence[Callable[[], Result]]
) -> list[Result]:
    """Runs tasks in threads, under the settings of a config, which threads do not inherit."""

    def run(task: Callable[[], Result]) -> Result:
        with ExitStack() as stack:
            stack.enter_context(jax.default_matmul_precision(models.matmul_precision(config)))
            stack.enter_context(mesh_context(mesh))
            return task()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, tasks))


def first_calls(
    config: Config, mesh: jax.sharding.Mesh, calls: Sequence[Callable[[], Any]]
) -> list[float]:
    """Calls each once, all at the same time; returns the seconds of each, compiling included."""
    return at_once(
        config,
        mesh,
        [lambda call=call: timing.first_call(call, jax.block_until_ready) for call in calls],
    )
