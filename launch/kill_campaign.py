r"""Kills a training run again and again, and shows that it ends as if nothing had happened.

    python launch/kill_campaign.py --kills 100 --seed 0 --workers 2 --output runs/kills --parallel 8

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
share the kills and the cores. Exit status 1 if anything was found.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.killed_run import Judge, committed, metric_lines, unfinished
from rae_dit.files import write_json

ROOT = Path(__file__).resolve().parent.parent
KEEP_LAST = 2
STEPS_PER_KILL, SPARE_STEPS = 6, 8  # length of the run; a life takes 3 steps on average
AIMS = ("starting", "stepping", "saving", "saving")  # half of the kills in writes
LONGEST_DELAY = 0.3  # seconds from what was waited for to the kill; a write takes about as long
PATIENCE = 300  # seconds after which a run counts as hung

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


class Task(NamedTuple):
    """One campaign of several."""

    work: Path  # its directory, beside that of the uninterrupted run
    cores: list[int]  # it runs on these
    kills: int
    seed: str  # decides when
    arguments: list[str]  # the command of the run, without its workdir
    start_seconds: float  # to the first step of the run


def command(settings: dict[str, Any]) -> list[str]:
    """The command line of the README, without its workdir."""
    changes = [f"--config.{name}={value}" for name, value in (TINY | settings).items()]
    start = [sys.executable, "-m", "rae_dit.main", f"--config={ROOT}/configs/dit_digits.py"]
    return start + changes


def launch(arguments: list[str], workdir: Path, log: Path) -> subprocess.Popen:
    """Starts a process group; all of them share one compile cache, which kills hit as well."""
    with log.open("w") as file:
        return subprocess.Popen(
            [*arguments, f"--workdir={workdir}"],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def finish(arguments: list[str], workdir: Path, log: Path) -> None:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    status = launch(arguments, workdir, log).wait()
    if status != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with {status}:\n{tail(log)}")


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text()[-3000:]


def await_aim(aim: str, target: int, workdir: Path, process: subprocess.Popen) -> bool:
    """Waits until the run does what it is to be killed at; False if it ends or hangs instead."""
    before, metrics = unfinished(workdir), workdir / "metrics.jsonl"
    begun, deadline = time.time(), time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
        if not metrics.exists() or metrics.stat().st_mtime < begun:
            continue  # what a former life left
        reached = metrics.read_bytes().count(b"\n") >= target
        if reached and (aim == "stepping" or unfinished(workdir) - before):
            return True
    return False


def run_lane(task: Task) -> dict[str, list[Any]]:
    """One campaign; returns its lives and the problems that it found.

    A run that ends before it is hit is judged as ended, and the next one begins from nothing.
    """
    os.sched_setaffinity(0, task.cores)
    draw, workdir = random.Random(task.seed), task.work / "run"
    judge = Judge(task.work.parent / "reference", KEEP_LAST)
    newest, lives, problems = 0, [], []
    for number in itertools.count():
        if len(lives) == task.kills:
            break
        aim = draw.choice(AIMS)
        delay = draw.uniform(0, task.start_seconds if aim == "starting" else LONGEST_DELAY)
        target = newest + draw.randint(1, STEPS_PER_KILL - 2)
        log, before = task.work / f"{number:03d}.log", unfinished(workdir)
        process = launch(task.arguments, workdir, log)
        hit = aim == "starting" or await_aim(aim, target, workdir, process)
        time.sleep(delay if hit else 0)
        ended = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):  # it ended by itself: reported below
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            found = judge.problems_at_the_end(workdir, newest)
            problems += [f"{task.work.name}, start {number}: {text}" for text in found]
            shutil.rmtree(workdir)
            newest = 0
            continue

        found = judge.problems(workdir, newest)
        if ended or not hit:
            found.append(f"it failed or hung before it was killed:\n{tail(log)}")
        match = re.search(r"continuing from step (\d+)", log.read_text())
        if match and int(match[1]) != newest:
            found.append(f"it continued from step {match[1]}, not from {newest}")
        problems += [f"{task.work.name}, start {number}: {text}" for text in found]
        newest = max(committed(workdir), default=0)
        lost = max(0, len(metric_lines(workdir)) - newest)
        in_a_write = bool(unfinished(workdir) - before)
        lives.append(
            {"aim": aim, "in_a_write": in_a_write, "newest_step": newest, "steps_lost": lost}
        )
    try:
        finish(task.arguments, workdir, task.work / "last.log")
        found = judge.problems_at_the_end(workdir, newest)
    except RuntimeError as error:
        found = [str(error)]
    problems += [f"{task.work.name}, at the end: {text}" for text in found]
    return {"lives": lives, "problems": problems}


def prepare(output: Path, workers: int, last: int) -> tuple[list[str], float]:
    """Trains without interruption.

    Returns:
        The command of the runs to kill, and for how many seconds they start.
    """
    reference = output / "reference"
    settings = {"data.num_workers": workers, "optim.max_steps": last}
    begun = time.time()
    keep_all = command(settings | {"checkpoint.keep_last": last})
    finish(keep_all, reference, output / "reference.log")
    start_seconds = 1.3 * ((reference / "config.json").stat().st_mtime - begun)  # and compiling
    return command(settings | {"checkpoint.keep_last": KEEP_LAST}), start_seconds


def run_campaign(
    *, kills: int, seed: int, workers: int, parallel: int, output: Path
) -> dict[str, Any]:
    """Runs all lanes, each on its own cores.

    Args:
        kills: of all lanes together.
        seed: decides when they happen.
        workers: processes that prepare batches, in each run.
        parallel: how many lanes.
        output: directory to make.

    Returns:
        What `main` prints and writes.
    """
    started, cores = time.monotonic(), sorted(os.sched_getaffinity(0))
    share = len(cores) // parallel
    if share == 0:
        raise ValueError(f"--parallel: got {parallel}, expected at most {len(cores)}, the cores")
    output.mkdir(parents=True)  # fails if it is there: a campaign begins from nothing
    os.environ["JAX_PLATFORMS"] = "cpu"  # other devices do not promise the same bits
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(output / "compile_cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    counts = [kills // parallel + (lane < kills % parallel) for lane in range(parallel)]
    os.sched_setaffinity(0, cores[:share])  # as many cores as a lane has give the same bits
    last = STEPS_PER_KILL * max(counts) + SPARE_STEPS
    arguments, start_seconds = prepare(output, workers, last)
    os.sched_setaffinity(0, cores)
    tasks = []
    for lane, count in enumerate(counts):
        work = output / f"lane_{lane}"
        work.mkdir()
        mine = cores[lane * share : (lane + 1) * share]
        tasks.append(Task(work, mine, count, f"{seed}.{lane}", arguments, start_seconds))
    with ProcessPoolExecutor(parallel, multiprocessing.get_context("spawn")) as pool:
        lanes = list(pool.map(run_lane, tasks))
    return {
        "kills": kills,
        "seed": seed,
        "workers": workers,
        "lanes": parallel,
        "cores_each": share,
        "steps_each": last,
        "seconds": round(time.monotonic() - started),
        "lives": [life for lane in lanes for life in lane["lives"]],
        "problems": [problem for lane in lanes for problem in lane["problems"]],
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
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
