r"""Memory and speed of a training step by remat and batch: one JSON line for each.

    python launch/benchmarks/bench_memory.py --config=configs/dit_dino.py --config.precision=bf16 \
        --remat=none,dots,full --batches=64,128,256
    python launch/benchmarks/bench_memory.py --config=configs/dit_dino_512.py \
        --config.precision=bf16 --remat=none,dots,full --batches=16,32,64

The batches of a policy are taken in order until one needs more than `--limit_gib`, which is what a
program may use of a GPU of 80 GB, whatever device this runs on. "program_gib" is the compiler's
account: state, frozen networks, batch and temporaries. Weights are random, images are noise that
lies on the device.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
from absl import app, flags
from bench import CONFIG, facts, random_images

from launch.benchmarks import timing
from rae_dit.config import Config, from_config_dict
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch

REMAT = flags.DEFINE_list("remat", ["none", "dots", "full"], "Values of compute.remat.")
BATCHES = flags.DEFINE_list("batches", ["64", "128", "256"], "Batch sizes, ascending.")
LIMIT = flags.DEFINE_float("limit_gib", 72.0, "Of the program; 80 GB leave 72 GiB to it.")
STEPS = flags.DEFINE_integer("steps", 8, "Per window, of two.", lower_bound=1)
GIB = 2**30


def main(_: list[str]) -> None:
    """Prints a line for each policy and batch."""
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)), jax.set_mesh(mesh):
        for line in measurements(config, mesh):
            print(json.dumps(line), flush=True)


def measurements(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Yields all lines; they share one state, whose shapes are the same in all of them."""
    frozen = make_task(config).load_frozen(mesh)
    state = make_program(config, mesh).create()
    for remat in REMAT.value:
        for size in map(int, BATCHES.value):
            section = dataclasses.replace(config.compute, remat=remat)
            changed = dataclasses.replace(
                config, compute=section, data=dataclasses.replace(config.data, batch_size=size)
            )
            batch = shard_batch(random_images(changed), mesh)
            program = make_program(changed, mesh)
            step = program.step.lower(state, frozen, batch).compile()
            needed = program_bytes(step.memory_analysis()) / GIB
            line = {
                "image_size": config.data.image_size,
                "remat": remat,
                "batch": size,
                "program_gib": round(needed, 2),
                "within_limit": needed <= LIMIT.value,
            }
            if needed > LIMIT.value:
                yield line | facts(changed)
                break

            def take(step: Any = step, batch: Any = batch) -> Any:
                nonlocal state
                state, metrics = step(state, frozen, batch)
                return metrics

            _, seconds = timing.median_seconds(
                take, jax.block_until_ready, windows=2, repeats=STEPS.value
            )
            rates = {"ms": round(1e3 * seconds, 1), "images_per_second": round(size / seconds, 1)}
            yield line | rates | facts(changed)


def program_bytes(found: Any) -> int:
    """Returns the bytes that a program needs: arguments, results that are not theirs, the rest."""
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return int(found.argument_size_in_bytes + results + found.temp_size_in_bytes)


if __name__ == "__main__":
    app.run(main)
