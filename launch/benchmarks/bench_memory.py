r"""Memory and speed of a training step by remat and batch: one JSON line for each.

    python launch/benchmarks/bench_memory.py --config=configs/dit_dino.py --config.precision=bf16
    python launch/benchmarks/bench_memory.py --config=configs/dit_dino_512.py \
        --config.precision=bf16 --cases=none:16,none:32,dots:32,dots:64,full:32,full:64,full:128

All programs are compiled first, many at once (XLA needs a core for each). "program_gib" is the
compiler's account: state, frozen networks, batch and temporaries, which is what a plan compares
with the memory there is (planning/advice.py). A program that needs more than `--limit_gib`, what
one may use of a GPU of 80 GB, is not run, whatever device this runs on; XLA saves memory where a
smaller device is short of it, so that a little more may fit there. Weights are random, images are
noise that lies on the device. The programs run one after another without a pause, the first after
five seconds of steps; the largest comes first, so that what it leaves holds the others.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from absl import app, flags
from bench import CONFIG, TURN, random_images

from launch.benchmarks import timing
from launch.benchmarks.facts import facts
from launch.benchmarks.together import at_once
from rae_dit.config import Config, from_config_dict
from rae_dit.planning.compiled import abstract_step, without_files
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, mesh_context, shard_batch

CASES = flags.DEFINE_list(
    "cases",
    ["none:64", "none:128", "dots:128", "dots:256", "full:128", "full:256", "full:512"],
    "compute.remat and batch of each program.",
)
LIMIT = flags.DEFINE_float("limit_gib", 72.0, "Of the program; 80 GB leave 72 GiB to it.")
SECONDS = flags.DEFINE_float("seconds", 0.8, "Of a window, roughly; three are timed.")
GIB = 2**30


class Case(NamedTuple):
    """A compiled step: its config, its program, and what compiling took."""

    config: Config
    program: jax.stages.Compiled
    compile_seconds: float


def main(_: list[str]) -> None:
    """Prints a line for each case."""
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)), mesh_context(mesh):
        configs = [with_case(config, case) for case in CASES.value]
        tasks = [functools.partial(compile_case, each, mesh) for each in configs]
        cases = at_once(config, mesh, tasks)
        timing.wait_for_turn(TURN.value)
        for line in measurements(config, mesh, cases):
            print(json.dumps(line), flush=True)


def with_case(config: Config, case: str) -> Config:
    """Returns the config with the remat and batch of REMAT:BATCH."""
    remat, size = case.split(":")
    values = {"compute": {"remat": remat}, "data": {"batch_size": int(size)}}
    sections = {
        name: dataclasses.replace(getattr(config, name), **fields)
        for name, fields in values.items()
    }
    return dataclasses.replace(config, **sections)


def compile_case(config: Config, mesh: jax.sharding.Mesh) -> Case:
    """Compiles a step from shapes."""
    begun = time.monotonic()
    step = abstract_step(config, mesh)
    program = step.function.lower(step.state, step.frozen, step.batch).compile()
    return Case(config, program, time.monotonic() - begun)


def measurements(
    config: Config, mesh: jax.sharding.Mesh, cases: list[Case]
) -> Iterator[dict[str, Any]]:
    """Yields all lines; they share one state, whose shapes are the same in all of them."""
    frozen = make_task(config).load_frozen(mesh)
    state = make_program(config, mesh).create()
    warm = timing.WARM_SECONDS
    for needed, case in sorted(((gib_of(case), case) for case in cases), key=lambda x: -x[0]):
        size = case.config.data.batch_size
        line = {
            "image_size": config.data.image_size,
            "remat": case.config.compute.remat,
            "batch": size,
            "program_gib": round(needed, 2),
            "within_limit": needed <= LIMIT.value,
            "compile_seconds": round(case.compile_seconds, 1),
        }
        if needed <= LIMIT.value:
            batch = shard_batch(random_images(case.config), mesh)

            def take(step: Any = case.program, batch: Any = batch) -> Any:
                nonlocal state
                state, metrics = step(state, frozen, batch)
                return metrics

            timing.heat(take, jax.block_until_ready, warm, calls=1)
            warm = 0.0
            _, seconds = timing.median_seconds(
                take, jax.block_until_ready, windows=3, window_seconds=SECONDS.value
            )
            line |= {"ms": round(1e3 * seconds, 1), "images_per_second": round(size / seconds, 1)}
        yield line | facts(case.config)


def gib_of(case: Case) -> float:
    """Returns what a program needs: arguments, results that do not lie in theirs, temporaries."""
    found = case.program.memory_analysis()
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return float(found.argument_size_in_bytes + results + found.temp_size_in_bytes) / GIB


if __name__ == "__main__":
    app.run(main)
