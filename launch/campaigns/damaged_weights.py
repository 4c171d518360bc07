r"""Damages files of weights at random and opens them: one line or numbers, and nothing else.

    python launch/campaigns/damaged_weights.py --cases 1000 --seed 0 --output runs/damaged

Of each kind of damage (bytes anywhere, instructions of a pickle, the directory of a zip, headers),
so many files are opened and all of their tensors read. Each must end in a WeightsError of one line
that names the file, or in numbers. What must not happen is counted as a problem:

* raw error: any other exception;
* code: a process, an import, a written file or a connection, as Python's audit events tell;
* slow: more than 10 seconds;
* memory: more than 100 times the file's size and 4 MiB, as tracemalloc tells, or 1 GiB in all;
* crash: the process ended.

A file may be read with other numbers where its format has no checksum. The exit status is 1 if
there was a problem; the files of problems are kept in OUTPUT.
"""

import argparse
import codecs
import collections
import logging
import multiprocessing
import random
import resource
import signal
import sys
import time
import tracemalloc
import unicodedata  # noqa: F401 - Python's parser imports it for some headers of numpy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.campaigns.damage import KINDS, arrays, write_files
from rae_dit.storage.files import write_json
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.tensor_file import open_tensors

SECONDS = 10
RATIO = 100  # of memory to the size of the file
SPARE = 4 << 20  # bytes that may be used whatever the size: errors, buffers
ADDRESS_SPACE = 1 << 30  # bytes beyond what the process has when it begins
BATCH = 50  # cases of one process call
PROBLEMS = ("raw error", "code", "slow", "memory", "crash")
EVENTS = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "import", "exec")
HARMLESS = {"os.listdir", "os.scandir", "os.fwalk", "os.walk"}

Open = Callable[[Path], Mapping[str, np.ndarray]]


class Case(NamedTuple):
    """One damaged file."""

    kind: str
    number: int
    outcome: str
    detail: str
    seconds: float
    memory: int  # peak, above the size of the file


class Slow(BaseException):
    """A file took too long; no reader catches this."""


def judge(path: Path, open_file: Open, events: list[str]) -> tuple[str, str]:
    """Opens a file and reads all tensors; returns the outcome and what is to be said about it.

    Args:
        path: the file.
        open_file: the reader.
        events: those of `watch`.
    """
    events.clear()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        tensors = open_file(path)
        found = {name: np.array(tensors[name]) for name in tensors}
        outcome, detail = "other numbers", ""
        if found.keys() == arrays().keys():
            same = all(np.array_equal(found[name], array) for name, array in arrays().items())
            outcome = "same numbers" if same else outcome
    except WeightsError as error:
        outcome, detail = "one line", str(error)
        if "\n" in detail or path.name.partition(".")[0] not in detail:
            outcome = "raw error"
    except Slow:
        outcome, detail = "slow", f"more than {SECONDS} seconds"
    except Exception as error:
        outcome, detail = "raw error", f"{type(error).__name__}: {error}"
    size = path.stat().st_size
    used = tracemalloc.get_traced_memory()[1] - before
    if used > RATIO * size + SPARE:
        outcome, detail = "memory", f"{used} bytes for a file of {size}"
    if events:
        outcome, detail = "code", ", ".join(events)
    return outcome, detail


@contextmanager
def watch() -> Iterator[list[str]]:
    """Yields the list of audit events that a reader has no business with; it fills as they occur.

    Audit hooks stay for the life of the process, so this is for processes of their own.
    """
    events: list[str] = []
    active = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not active[0]:
            return
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wa+x")
        )
        if writes or (event.startswith(EVENTS) and event not in HARMLESS):
            events.append(f"{event}{arguments!r:.100}")

    def too_slow(*_: object) -> NoReturn:
        raise Slow

    signal.signal(signal.SIGALRM, too_slow)
    tracemalloc.start()
    sys.addaudithook(hook)
    try:
        yield events
    finally:
        active[0] = False
        signal.alarm(0)
        tracemalloc.stop()


def run_batch(task: tuple[str, Path, Path, int, range]) -> list[Case]:
    """Opens some damaged files of one kind; those of problems stay in the directory."""
    kind, sound, directory, seed, numbers = task
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (now + ADDRESS_SPACE, hard))
    logging.disable()
    codecs.lookup("raw_unicode_escape")  # pickletools imports it for an instruction of protocol 0
    content, damage = sound.read_bytes(), KINDS[kind][1]
    for other in sound.parent.iterdir():  # once, so that imports are done
        open_tensors(other)
    cases = []
    with watch() as events:
        for number in numbers:
            name = f"case{number}-{kind.replace(' ', '-').replace(',', '')}"
            path = directory / f"{name.replace('.', '')}{''.join(sound.suffixes[-2:])}"
            path.write_bytes(damage(content, random.Random(f"{seed} {kind} {number}")))
            size, started = path.stat().st_size, time.monotonic()
            signal.alarm(SECONDS)
            outcome, detail = judge(path, open_tensors, events)
            signal.alarm(0)
            seconds, memory = time.monotonic() - started, tracemalloc.get_traced_memory()[1] - size
            cases.append(Case(kind, number, outcome, detail, seconds, memory))
            if outcome not in PROBLEMS:
                path.unlink()
            events.clear()
    return cases


def run_campaign(*, cases: int, seed: int, parallel: int, output: Path) -> list[Case]:
    """Opens `cases` damaged files of every kind; makes the directory `output`."""
    sound, damaged = output / "sound", output / "damaged"
    for directory in (sound, damaged):
        directory.mkdir(parents=True)
    files = write_files(sound)
    (damaged / "a.safetensors").write_bytes((sound / "a.safetensors").read_bytes())  # of the index
    tasks = [
        (kind, path, damaged, seed, range(start, min(start + BATCH, cases)))
        for kind, path in files.items()
        for start in range(0, cases, BATCH)
    ]
    found: list[Case] = []
    while tasks:
        with ProcessPoolExecutor(parallel, multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(run_batch, task) for task in tasks]
            try:
                while futures:
                    found += futures[0].result()
                    del futures[0], tasks[0]
            except BrokenProcessPool:
                kind, *_, numbers = tasks.pop(0)
                found.append(Case(kind, numbers[0], "crash", f"in or beside {numbers}", 0.0, 0))
    return found


def table(cases: list[Case]) -> str:
    """Formats the outcomes by kind as Markdown."""
    outcomes = ("one line", "same numbers", "other numbers", *PROBLEMS)
    rows = [
        "| damage | " + " | ".join(outcomes) + " | slowest, s | most memory, kB |",
        "|---" * (len(outcomes) + 3) + "|",
    ]
    for kind in KINDS:
        mine = [case for case in cases if case.kind == kind]
        counts = collections.Counter(case.outcome for case in mine)
        numbers = [str(counts[outcome]) for outcome in outcomes]
        slowest = max((case.seconds for case in mine), default=0)
        memory = max((case.memory for case in mine), default=0) / 1e3
        rows.append(f"| {kind} | {' | '.join(numbers)} | {slowest:.2f} | {memory:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Runs the campaign, prints a table, writes OUTPUT/report.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000, help="of every kind of damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1, help="processes")
    parser.add_argument("--output", type=Path, required=True, help="directory, must not exist")
    options = parser.parse_args()
    cases = run_campaign(**vars(options))
    problems = [case._asdict() for case in cases if case.outcome in PROBLEMS]
    write_json(options.output / "report.json", {"cases": len(cases), "problems": problems})
    print(table(cases))
    for problem in problems[:20]:
        print(f"{problem['kind']} {problem['number']}: {problem['outcome']}: {problem['detail']}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
