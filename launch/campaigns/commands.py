"""The program's command lines in forked processes: imports are done once, all else in each anew."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ENDING = "rae_dit: "  # begins the line that ends a refused command


class Ended(NamedTuple):
    """A command that has ended: its status, or minus the signal that ended it, and what it said."""

    status: int
    said: str


def import_all() -> None:
    """Imports what commands need; starts no device, so that processes can be forked."""
    import jax  # noqa: F401

    import rae_dit.data.folder
    import rae_dit.data.huggingface
    import rae_dit.data.tar
    import rae_dit.main
    import rae_dit.modes.sample
    import rae_dit.modes.train
    import rae_dit.weights.__main__  # noqa: F401


def run_command(
    module: str,
    arguments: list[str],
    directory: Path,
    prepare: Callable[[], None] = lambda: None,
    seconds: int = 300,
) -> Ended:
    """Runs `python -m MODULE ARGUMENTS` in a fork of this process, and waits for its end.

    Args:
        module: rae_dit.main or rae_dit.weights.
        arguments: of the command.
        directory: for what it says.
        prepare: called first, in the new process.
        seconds: after which it is killed.
    """
    log = directory / "said"
    child = os.fork()
    if child == 0:
        _become(module, arguments, log, prepare, seconds)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def _become(
    module: str, arguments: list[str], log: Path, prepare: Callable[[], None], seconds: int
) -> None:
    """Runs a command in this process, and ends it."""
    status = 1
    try:
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(ROOT)
        signal.alarm(seconds)
        sys.argv = [module, *arguments]
        prepare()
        if module == "rae_dit.main":
            from rae_dit.main import run

            run()
        else:
            from rae_dit.weights.__main__ import main

            main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def judge(ended: Ended) -> str:
    """Names the outcome: "accepted", "refused" (status 2, one line of ours), or "FAILED: ..."."""
    lines = ended.said.strip().splitlines() or [""]
    explained = lines[-1].startswith(ENDING) and "; traceback in " not in lines[-1]
    if "Traceback" in ended.said or not (ended.status == 0 or (ended.status == 2 and explained)):
        return f"FAILED: status {ended.status}: {ended.said[-500:]}"
    return "refused" if ended.status else "accepted"
