r"""Duration of saving and restoring a checkpoint: one JSON line for each.

    python launch/benchmarks/bench_checkpoint.py --config=configs/dit_dino_s.py --directory=DIR

"save" has two times: how long training waits (`blocked_ms`: checksums, and arrays to the host) and
when the files are complete. "restore" reads them back with every check, as a resumed run does.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from bench import CONFIG, facts

from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.config import Config, from_config_dict
from rae_dit.planning.compiled import without_files
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh

DIRECTORY = flags.DEFINE_string("directory", None, "Where to write and clean up.", required=True)


def main(_: list[str]) -> None:
    """Prints the two lines."""
    config = without_files(from_config_dict(CONFIG.value))
    directory = Path(DIRECTORY.value) / "bench_checkpoint"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        for line in measurements(config, directory):
            print(json.dumps(line | facts(config)), flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measurements(config: Config, directory: Path) -> Iterator[dict[str, Any]]:
    """Saves a state twice, timing the second (the first compiles), and restores it."""
    program = make_program(config, make_mesh(config.sharding.fsdp))
    state = program.create()
    trees = (state.params, state.ema, state.opt_state)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
    with Checkpoints(directory, save_every=1, keep_last=1, keep_every=None) as checkpoints:
        for step in (1, 2):
            begun = time.perf_counter()
            checkpoints.save(step, state, {})
            blocked = time.perf_counter() - begun
            checkpoints.has(step)  # waits for the files
            written = time.perf_counter() - begun
        yield {"part": "save", "blocked_ms": round(1e3 * blocked)} | rate(size, written)
        begun = time.perf_counter()
        restored, _ = checkpoints.restore_step(2, program.abstract)
        jax.block_until_ready(restored)
        yield {"part": "restore"} | rate(size, time.perf_counter() - begun)


def rate(size: int, seconds: float) -> dict[str, float]:
    """Returns size and speed."""
    gib = size / 2**30
    return {
        "gib": round(gib, 2),
        "seconds": round(seconds, 2),
        "gib_per_second": round(gib / seconds, 2),
    }


if __name__ == "__main__":
    app.run(main)
