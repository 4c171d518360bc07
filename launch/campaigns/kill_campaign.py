r"""Crash test: kills a training run at random and compares its end with an uninterrupted run.

    python launch/campaigns/kill_campaign.py --kills 100 --seed 0 --workers 2 \
        --output runs/kills --parallel 8

The run is the README's stage 2 on digits, made tiny and with a random encoder. SIGKILL hits its
process group at random: while it starts, between steps, and in the writes of its checkpoints. After
each kill, and before the same command continues:

1. config.json and metrics.jsonl are whole, but for a last line that was torn;
2. the metrics are those of an uninterrupted run, step by step, and none is missing;
3. no step that was seen on disk is gone, unless newer ones took its place;
4. the newest steps can be restored, and are those of the uninterrupted run bit for bit;
5. the next start continues from the newest of them.

At the end the whole state is that of the uninterrupted run, bit for bit. A run that gets there
before its kills are used up is followed by another. With --parallel, so many independent campaigns
share the kills and the cores. With --processes 2, a run is of so many processes, one of which is
killed, and the others must end by themselves. With --storage gs, their workdirs are in a bucket of
an emulator, and that of the uninterrupted run is on a disk. Exit status 1 if anything was found.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.campaigns.kill_lane import AIMS, KEEP_LAST, ROOT, STEPS_PER_KILL, Task, finish, run_lane
from rae_dit.storage.files import write_json
from tests.support.bucket import NAME, emulator, environment

SPARE_STEPS = 8  # behind those that the kills are expected to take

TINY = {
    "data.batch_size": 16,
    "encoder.depth": 1,
    "encoder.hidden_size": 16,
    "encoder.num_heads": 2,
    "metrics.log_every": 1,
    "metrics.validate_every": 1000,
    "ddt.hidden_size": "(16,32)",
    "ddt.depth": "(1,1)",
    "ddt.num_heads": "(2,2)",
    "checkpoint.save_every": 2,
}


def command(settings: dict[str, Any]) -> list[str]:
    """Returns the README's command line, without the workdir."""
    changes = [f"--config.{name}={value}" for name, value in (TINY | settings).items()]
    start = [sys.executable, "-m", "rae_dit.main", f"--config={ROOT}/configs/dit_digits.py"]
    return start + changes


def prepare(output: Path, workers: int, last: int, processes: int) -> tuple[list[str], float]:
    """Trains without interruption.

    Returns:
        The command of the runs to kill, and for how many seconds they start.
    """
    reference = output / "reference"
    settings = {"data.num_workers": workers, "optim.max_steps": last}
    begun = time.time()
    keep_all = command(settings | {"checkpoint.keep_last": last})
    finish(keep_all, reference, output / "reference.log", processes)
    start_seconds = 1.3 * ((reference / "config.json").stat().st_mtime - begun)  # and compiling
    return command(settings | {"checkpoint.keep_last": KEEP_LAST}), start_seconds


def run_campaign(
    *,
    kills: int,
    seed: int,
    workers: int,
    parallel: int,
    processes: int,
    storage: str,
    output: Path,
) -> dict[str, Any]:
    """Runs all lanes, each on its own cores.

    Args:
        kills: of all lanes together.
        seed: decides when they happen.
        workers: processes that prepare batches, in each run.
        parallel: how many lanes.
        processes: of each run; one of them is killed, and the others must end by themselves.
        storage: "disk", or "gs": workdirs of the killed runs are in a bucket.
        output: directory to make.

    Returns:
        What `main` prints and writes.
    """
    started, cores = time.monotonic(), sorted(os.sched_getaffinity(0))
    share = len(cores) // parallel
    if share == 0:
        raise ValueError(f"--parallel: got {parallel}; expected at most {len(cores)}, the cores")
    output.mkdir(parents=True)  # fails if it is there: a campaign begins from nothing
    os.environ["JAX_PLATFORMS"] = "cpu"  # other devices do not promise the same bits
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(output / "compile_cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    counts = [kills // parallel + (lane < kills % parallel) for lane in range(parallel)]
    os.sched_setaffinity(0, cores[:share])  # as many cores as a lane has give the same bits
    last = STEPS_PER_KILL * max(counts) + SPARE_STEPS
    arguments, start_seconds = prepare(output, workers, last, processes)
    os.sched_setaffinity(0, cores)
    tasks = []
    for lane, count in enumerate(counts):
        work = output / f"lane_{lane}"
        work.mkdir()
        mine = cores[lane * share : (lane + 1) * share]
        bucket = f"gs://{NAME}" if storage == "gs" else ""
        lane_seed = f"{seed}.{lane}"
        tasks.append(
            Task(work, mine, count, lane_seed, arguments, start_seconds, processes, bucket)
        )
    with contextlib.ExitStack() as stack:
        if storage == "gs":
            os.environ.update(environment(stack.enter_context(emulator())))
        spawn = multiprocessing.get_context("spawn")
        lanes = list(stack.enter_context(ProcessPoolExecutor(parallel, spawn)).map(run_lane, tasks))
    return {
        "kills": kills,
        "seed": seed,
        "workers": workers,
        "processes": processes,
        "storage": storage,
        "lanes": parallel,
        "cores_each": share,
        "steps_each": last,
        "seconds": round(time.monotonic() - started),
        "lives": [life for lane in lanes for life in lane["lives"]],
        "problems": [problem for lane in lanes for problem in lane["problems"]],
    }


def table(report: dict[str, Any]) -> str:
    """Formats the report as Markdown."""
    rows = ["| killed | kills | in a write | steps lost, mean | most |", "|---|---|---|---|---|"]
    groups = {"while " + aim: [x for x in report["lives"] if x["aim"] == aim] for aim in set(AIMS)}
    for name, lives in [*sorted(groups.items()), ("all", report["lives"])]:
        lost, writes = [x["steps_lost"] for x in lives] or [0], sum(x["in_a_write"] for x in lives)
        mean = sum(lost) / len(lost)
        rows.append(f"| {name} | {len(lives)} | {writes} | {mean:.1f} | {max(lost)} |")
    return "\n".join(rows)


def main() -> None:
    """Runs the campaign, prints a table, writes OUTPUT/report.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="data.num_workers of the run")
    parser.add_argument("--parallel", type=int, default=1, help="campaigns at once")
    parser.add_argument("--processes", type=int, default=1, help="of each run; one is killed")
    parser.add_argument("--storage", choices=("disk", "gs"), default="disk", help="of workdirs")
    parser.add_argument("--output", type=Path, required=True, help="directory, must not exist")
    options = parser.parse_args()
    report = run_campaign(**vars(options) | {"output": options.output.resolve()})
    write_json(options.output / "report.json", report)
    print(table(report))
    print("\n".join(report["problems"]) or "nothing was lost, damaged or different")
    print(f"{report['seconds']} seconds, {report['lanes']} lanes of {report['cores_each']} cores")
    sys.exit(1 if report["problems"] else 0)


if __name__ == "__main__":
    main()
