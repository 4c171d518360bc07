r"""What shortens compiling a training step, and what that costs: one JSON line for each setting.

    python launch/benchmarks/bench_compile.py --config=configs/dit_dino.py --config.precision=bf16 \
        --config.data.batch_size=64 --config.ddt.depth="(7,2)"

Each setting is compiled in a process of its own, because XLA remembers within one which products it
has tried, and without the persistent cache; then its step is timed. A setting is worth having where
`compile_seconds` falls and `ms` does not rise. Settings are compiler options beside ours
(rae_dit/compiler.py). Nothing else should run. Weights are random, images noise on the device.
"""

import json
import subprocess
import sys
import time
from typing import Any

import jax
from absl import app, flags
from bench import CONFIG, random_images

from launch.benchmarks import timing
from launch.benchmarks.facts import facts
from rae_dit import compiler
from rae_dit.config import from_config_dict
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch

PARALLEL = "xla_gpu_force_compilation_parallelism"
SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {},
    "kernels on all cores": {PARALLEL: 16},
    "and 4 candidates a product": {PARALLEL: 16, "xla_gpu_autotune_max_solutions": 4},
    "and no candidate checked": {PARALLEL: 16, "xla_gpu_autotune_level": 1},
    "and no autotuning": {PARALLEL: 16, "xla_gpu_autotune_level": 0},
}
CHOSEN = flags.DEFINE_list("settings", list(SETTINGS), "Which, by name.")
STEPS = flags.DEFINE_integer("steps", 10, "Per window, of three.", lower_bound=1)


def main(_: list[str]) -> None:
    """Prints a line for each setting."""
    if len(CHOSEN.value) == 1:
        print(json.dumps(measure(CHOSEN.value[0])), flush=True)
        return
    for name in CHOSEN.value:
        ended = subprocess.run([sys.executable, *sys.argv, f"--settings={name}"], check=False)
        if ended.returncode:  # an option that this XLA does not know, say; the other lines count
            print(json.dumps({"part": "compile", "setting": name, "status": ended.returncode}))


def measure(name: str) -> dict[str, Any]:
    """Compiles and times a step with one setting."""
    jax.config.update("jax_enable_compilation_cache", False)
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        program = make_program(config, mesh)
        frozen = make_task(config).load_frozen(mesh)
        state = program.create()
        batch = shard_batch(random_images(config), mesh)
        own = compiler.OPTIONS.get(jax.default_backend(), {})
        small = jax.ShapeDtypeStruct((1024, 1024), "bfloat16")
        product = jax.jit(lambda a, b: a @ b, compiler_options=own)
        jax.block_until_ready((state, product.lower(small, small).compile()))  # loads libraries
        begun = time.monotonic()
        lowered = program.step.lower(state, frozen, batch)
        traced = time.monotonic()
        step = lowered.compile(compiler_options=own | SETTINGS[name])
        compiled = time.monotonic()

        def take() -> Any:
            nonlocal state
            state, metrics = step(state, frozen, batch)
            return metrics

        _, each = timing.median_seconds(take, jax.block_until_ready, windows=3, repeats=STEPS.value)
    return {
        "part": "compile",
        "setting": name,
        "trace_seconds": round(traced - begun, 1),
        "compile_seconds": round(compiled - traced, 1),
        "ms": round(1e3 * each, 2),
        "depth": config.ddt.depth,
        "batch": config.data.batch_size,
    } | facts(config)


if __name__ == "__main__":
    app.run(main)
