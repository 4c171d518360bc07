r"""Duration of saving and restoring a checkpoint: one JSON line for each.

    python launch/benchmarks/bench_checkpoint.py --config=configs/dit_dino_s.py --directory=DIR

"save" has two times: how long training waits (`blocked_ms`: checksums, and arrays to the host) and
when the files are complete. "restore" reads them back with every check, as a resumed run does.
`--action` splits this over processes, which may have other devices: "begin" leaves the files,
"continue" restores them and saves the next step, "end" restores that and cleans up.
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
from rae_dit.training.state import TrainState

ACTION = flags.DEFINE_enum("action", "all", ("all", "begin", "continue", "end"), "See above.")
DIRECTORY = flags.DEFINE_string("directory", None, "Where to write and clean up.", required=True)


def main(_: list[str]) -> None:
    """Prints the lines."""
    config = without_files(from_config_dict(CONFIG.value))
    directory = Path(DIRECTORY.value) / "bench_checkpoint"
    if ACTION.value in ("all", "begin"):
        shutil.rmtree(directory, ignore_errors=True)
    try:
        for line in measurements(config, directory):
            print(json.dumps(line | facts(config)), flush=True)
    finally:
        if ACTION.value in ("all", "end"):
            shutil.rmtree(directory, ignore_errors=True)


def measurements(config: Config, directory: Path) -> Iterator[dict[str, Any]]:
    """Restores the newest step if another process left it; saves, unless this is the end.

    Of the first two saves the second is timed: the first compiles.
    """
    program = make_program(config, make_mesh(config.sharding.fsdp))
    with Checkpoints(directory, save_every=1, keep_last=1, keep_every=None) as checkpoints:
        if ACTION.value in ("all", "begin"):
            state = program.create()
            for step in (1, 2):
                yield {"part": f"save of step {step}"} | save(checkpoints, step, state)
        if ACTION.value != "begin":
            newest = checkpoints.latest_step()
            if newest is None:
                raise SystemExit(f"{directory}: got no step; expected one of --action=begin")
            begun = time.perf_counter()
            state, _ = checkpoints.restore_step(newest, program.abstract)
            jax.block_until_ready(state)
            yield {"part": "restore"} | rate(size_of(state), time.perf_counter() - begun)
            if ACTION.value == "continue":
                yield {"part": "save"} | save(checkpoints, newest + 1, state)


def save(checkpoints: Checkpoints, step: int, state: TrainState) -> dict[str, float]:
    """Saves a state; returns how long that took."""
    begun = time.perf_counter()
    checkpoints.save(step, state, {})
    blocked = time.perf_counter() - begun
    checkpoints.has(step)  # waits for the files
    return {"blocked_ms": round(1e3 * blocked)} | rate(size_of(state), time.perf_counter() - begun)


def size_of(state: TrainState) -> int:
    """Returns the bytes of a state's parameters, EMA and moments."""
    trees = (state.params, state.ema, state.opt_state)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees))


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
