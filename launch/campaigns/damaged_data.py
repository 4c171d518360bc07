r"""Fuzz test: opens damaged files of data and expects the right value or one line, nothing else.

    python launch/campaigns/damaged_data.py --cases 300 --seed 0

Sound files of every kind (folder, parquet, arrow, tar, .npz of samples, .npz of a reference, names
of classes) are written small, changed at random (bits, bytes, runs of zeros, lengths, pieces twice
or gone), opened, and read to the end. An outcome is

- read: everything could be read; damaged images may have been replaced, which a run counts;
- refused: a SourceError of one line;
- FAILED: any other exception, or a message of several lines;
- CRASHED: the process died, took longer than 20 seconds, or more memory than 4 GB.

The cases run in processes that do nothing else, so that a crash is an outcome, too. Exit status 1
if anything failed or crashed. damaged_commands.py sends such files through the command line.
"""

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.campaigns.damaged_files import CLASSES, KINDS, SIDE, Case, make
from rae_dit.data.class_files import read_names
from rae_dit.data.files import SourceError
from rae_dit.data.readers import open_source
from rae_dit.evaluation.references import open_reference
from rae_dit.evaluation.stored import open_stored

SECONDS, MEMORY = 20, 4 * 2**30  # of a case
_AT_ONCE = 50


def read(kind: str, path: Path) -> None:
    """Opens a path as a run does, and reads all of it."""
    match kind:
        case "samples":
            for _ in open_stored(path).blocks(4):
                pass
        case "reference":
            open_reference(path, ("fid",))
        case "names":
            read_names(path)
        case _:
            source = open_source(
                "huggingface" if kind in ("parquet", "arrow") else kind,  # type: ignore[arg-type]
                str(path),
                split="train",
                image_size=SIDE,
                num_classes=CLASSES,
                crop="adm_center",
                max_bad_share=1.0,
            )
            for index in range(len(source)):
                source[index]


def outcome(case: Case) -> str:
    """Runs a case in this process: "read", "refused" or "FAILED: ..."."""
    with tempfile.TemporaryDirectory() as root:
        path = make(case, Path(root))
        try:
            read(case.kind, path)
        except SourceError as error:
            return f"FAILED: several lines: {error!r}" if "\n" in str(error) else "refused"
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"FAILED: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return "read"


def _work(cases: list[Case], report: Path, run: Callable[[Case], str]) -> None:
    """Runs cases one after the other; a line for each, before and after."""
    warnings.simplefilter("ignore")  # PIL's, of each damaged tag
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with report.open("w") as file:
        for number, case in enumerate(cases):
            print(f"{number}", end=" ", file=file, flush=True)
            signal.alarm(SECONDS)
            print(json.dumps(run(case)), file=file, flush=True)


def run_apart(cases: list[Case], run: Callable[[Case], str] = outcome) -> list[str]:
    """Runs cases in a process of their own, and in another one after each that crashed."""
    context = multiprocessing.get_context("spawn")
    found: list[str] = []
    with tempfile.TemporaryDirectory() as root:
        while len(found) < len(cases):
            report = Path(root) / "report"
            rest = cases[len(found) : len(found) + _AT_ONCE]
            process = context.Process(target=_work, args=(rest, report, run))
            process.start()
            process.join()
            lines = [line.partition(" ")[2] for line in report.read_text().splitlines()]
            found += [json.loads(line) for line in lines if line]
            if len([line for line in lines if line]) < len(rest):
                found.append(f"CRASHED: exit code {process.exitcode}")
    return found


def campaign(cases: list[Case], run: Callable[[list[Case]], list[str]]) -> bool:
    """Runs cases, prints counts by kind and what went wrong; returns whether nothing did."""
    counts: dict[str, Counter[str]] = {}
    wrong = []
    for case, found in zip(cases, run(cases), strict=True):
        word = found.partition(":")[0]
        counts.setdefault(case.kind, Counter())[word] += 1
        if word in ("FAILED", "CRASHED"):
            wrong.append(f"{case.kind} {case.seed}: {found}")
    for kind, outcomes in counts.items():
        print(f"{kind:10} " + ", ".join(f"{n} {word}" for word, n in sorted(outcomes.items())))
    print(*wrong, sep="\n")
    return not wrong


def main() -> None:
    """Parses the options and runs the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    kinds = options.kinds
    cases = [
        Case(kinds[n % len(kinds)], options.seed + n // len(kinds)) for n in range(options.cases)
    ]
    fine = campaign(sorted(cases), run_apart)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
