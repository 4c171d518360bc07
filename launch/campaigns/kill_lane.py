"""One lane of kill_campaign.py: starts a run, kills it, checks what it left, and repeats."""

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from launch.campaigns.killed_run import RunComparison, committed, metric_lines, unfinished
from rae_dit.storage.places import is_url, place
from rae_dit.storage.reading import paths_below

ROOT = Path(__file__).resolve().parents[2]
KEEP_LAST = 2
STEPS_PER_KILL = 6  # of the length of the run; a life takes 3 steps on average
AIMS = ("starting", "stepping", "saving", "saving")  # half of the kills in writes
LONGEST_DELAY = 0.3  # seconds from what was waited for to the kill; a write takes about as long
PATIENCE = 300  # seconds after which a run counts as hung
# For the other processes to end after one was killed: the heartbeat's 60 and a busy machine's.
ENDING_SECONDS = 150
# While they start they wait for it in JAX's `initialize`, up to 300 seconds: they are killed then.
STARTING_SECONDS = 10


class Task(NamedTuple):
    """One campaign of several."""

    work: Path  # its directory, beside that of the uninterrupted run
    cores: list[int]  # it runs on these
    kills: int
    seed: str  # decides when
    arguments: list[str]  # the command of the run, without its workdir
    start_seconds: float  # to the first step of the run
    processes: int = 1  # of the run; one of them is killed, and the others must end
    bucket: str = ""  # URL that its workdir is below; '': below `work`


def launch(
    arguments: list[str], workdir: Path, log: Path, processes: int = 1
) -> list[subprocess.Popen]:
    """Starts the processes of a run, each a process group; they share one compile cache.

    The first writes to `log`, the others beside it.
    """
    started = []
    places: list[list[str]] = [[]]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        shared = [f"--coordinator_address={address}", f"--num_processes={processes}"]
        places = [[*shared, f"--process_id={i}"] for i in range(processes)]
    for number, flags in enumerate(places):
        with (log.with_suffix(f".{number}.log") if number else log).open("w") as file:
            command = [*arguments, f"--workdir={workdir}", *flags]
            started.append(
                subprocess.Popen(
                    command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
                )
            )
    return started


def finish(arguments: list[str], workdir: Path, log: Path, processes: int = 1) -> None:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    statuses = [process.wait() for process in launch(arguments, workdir, log, processes)]
    if any(statuses):
        raise RuntimeError(f"{' '.join(arguments)} ended with {statuses}:\n{tail(log)}")


def kill(process: subprocess.Popen) -> None:
    """Kills a process and its children; it may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def await_end(processes: list[subprocess.Popen], seconds: float) -> bool:
    """Waits for processes whose peer was killed; kills those that stay, and tells of them."""
    last = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < last:
        time.sleep(0.05)
    ended = all(process.poll() is not None for process in processes)
    for process in processes:
        kill(process)
        process.wait()
    return ended


def remove(workdir: Path) -> None:
    """Deletes a run."""
    if is_url(workdir):
        for name in paths_below(workdir):
            (workdir / name).unlink(missing_ok=True)
    else:
        shutil.rmtree(workdir)


def tail(log: Path) -> str:
    """Returns the end of a log."""
    return log.read_text()[-3000:]


def await_aim(aim: str, target: int, workdir: Path, processes: list[subprocess.Popen]) -> bool:
    """Waits until the run reaches the point to kill it at; False if it ends or hangs."""
    before, metrics = unfinished(workdir), workdir / "metrics.jsonl"
    begun, deadline = time.time(), time.monotonic() + PATIENCE
    while all(p.poll() is None for p in processes) and time.monotonic() < deadline:
        time.sleep(0.002)
        if not metrics.exists() or metrics.stat().st_mtime_ns < begun * 1e9:
            continue  # what a former life left
        reached = metrics.read_bytes().count(b"\n") >= target
        if reached and (aim == "stepping" or unfinished(workdir) - before):
            return True
    return False


def run_lane(task: Task) -> dict[str, list[Any]]:
    """One campaign; returns its lives and the problems that it found.

    A run that ends before it is hit is counted as ended, and the next one begins from nothing.
    """
    os.sched_setaffinity(0, task.cores)
    draw, workdir = random.Random(task.seed), task.work / "run"
    if task.bucket:
        workdir = place(f"{task.bucket}/{task.work.name}/run")
    comparison = RunComparison(task.work.parent / "reference", KEEP_LAST)
    newest, lives, problems = 0, [], []
    for number in itertools.count():
        if len(lives) == task.kills:
            break
        aim = draw.choice(AIMS)
        delay = draw.uniform(0, task.start_seconds if aim == "starting" else LONGEST_DELAY)
        target = newest + draw.randint(1, STEPS_PER_KILL - 2)
        log, before = task.work / f"{number:03d}.log", unfinished(workdir)
        processes = launch(task.arguments, workdir, log, task.processes)
        hit = aim == "starting" or await_aim(aim, target, workdir, processes)
        time.sleep(delay if hit else 0)
        ended = any(process.poll() is not None for process in processes)
        victim = processes[draw.randrange(len(processes)) if len(processes) > 1 else 0]
        kill(victim)  # it may have ended by itself: reported below
        patience = STARTING_SECONDS if aim == "starting" else ENDING_SECONDS
        others_ended = await_end(processes, patience)
        if all(process.wait() == 0 for process in processes):
            found = comparison.problems_at_the_end(workdir, newest)
            problems += [f"{task.work.name}, start {number}: {text}" for text in found]
            remove(workdir)
            newest = 0
            continue

        found = comparison.problems(workdir, newest)
        if not others_ended and aim != "starting":
            found.append(f"a process stayed {ENDING_SECONDS} s after another was killed")
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
        finish(task.arguments, workdir, task.work / "last.log", task.processes)
        found = comparison.problems_at_the_end(workdir, newest)
    except RuntimeError as error:
        found = [str(error)]
    problems += [f"{task.work.name}, at the end: {text}" for text in found]
    return {"lives": lives, "problems": problems}
