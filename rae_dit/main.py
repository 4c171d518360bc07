r"""Command line: flags become a `Config`, which goes to one mode.

    python -m rae_dit.main --config=configs/dit_digits.py --workdir=runs/a [--mode=sample] \
        [--config.optim.learning_rate=3e-4] [--config.sample.cfg_interval="(0.1, 1.0)"] \
        [--coordinator_address=HOST:PORT --num_processes=2 --process_id=0]

A mistake ends the program with status 2 and one line on stderr, before jax is imported; --debug
adds the traceback.
"""

import functools
import logging
import traceback
from contextlib import nullcontext

import absl.logging
from absl import app, flags

from rae_dit.background import leave_background
from rae_dit.command_line import log_to_stderr
from rae_dit.config import ConfigError, check_devices, to_dict
from rae_dit.failures import ending_in_one_line, exit_with, report
from rae_dit.hardware import unused_accelerator
from rae_dit.multihost import (
    EndTogether,
    StopAtOnce,
    decide,
    initialize,
    require_same,
)
from rae_dit.provenance import running_code, running_command
from rae_dit.request import Request, define_flags, read_request
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import check_writable

log = logging.getLogger("rae_dit.main")  # as __main__, too


def main(request: Request) -> None:
    """Runs one mode.

    Raises:
        SystemExit: status 2 after one line on stderr, when something is wrong; the traceback of
            what no message of ours explains is in a file of the workdir.
    """
    with ending_in_one_line((), request.workdir, debug=request.debug):
        start(request)


def start(request: Request) -> None:
    """Joins the processes and runs the mode; raises as `main`."""
    import jax  # late: it is slow to import, and nothing before this line needs it

    from rae_dit.checkpoint.manager import CheckpointError
    from rae_dit.compiler import use_compile_cache
    from rae_dit.data.bad_images import BadShareError
    from rae_dit.data.files import SourceError
    from rae_dit.data.position import ChangedDataError
    from rae_dit.sampling.generate import NotFiniteError
    from rae_dit.training.history import DivergedError
    from rae_dit.weights.mapping import WeightsError

    absl.logging.set_verbosity(absl.logging.WARNING)
    if request.dry_run:
        print_dry_run(request)
        return
    use_compile_cache(request.config.compute.compile_cache)
    initialize(request.process)
    set_up_log(jax.process_index())
    own = (
        *(ConfigError, StorageError, CheckpointError, WeightsError, SourceError),
        *(BadShareError, ChangedDataError, DivergedError, NotFiniteError),
    )
    in_one_line = functools.partial(report, own=own, directory=request.workdir, debug=request.debug)
    stops_at_a_step = request.mode in ("train", "probe")
    try:
        with EndTogether(own, in_one_line), nullcontext() if stops_at_a_step else StopAtOnce():
            settings = to_dict(request.config)
            require_same(lambda: running_code() | running_command(request.mode, settings))
            if request.mode != "sample":  # which may write elsewhere
                decide(lambda: check_writable(request.workdir), StorageError)
            run_mode(
                request,
                platform=jax.default_backend(),
                num_devices=jax.device_count(),
                num_processes=jax.process_count(),
            )
    except own as error:
        if request.debug:
            traceback.print_exc()
        exit_with(error)


def print_dry_run(request: Request) -> None:
    """Prints what the run would do; ends with status 2 if a file for it is missing."""
    from rae_dit.planning.dry_run import check_files, dry_run

    logging.getLogger("rae_dit").setLevel(logging.ERROR)  # no word about random weights
    try:
        text, missing = dry_run(request.config, request.workdir, request.mode)
        print(text, flush=True)
        check_files(missing)
    except ConfigError as error:
        exit_with(error)


def run_mode(request: Request, *, platform: str, num_devices: int, num_processes: int) -> None:
    """Checks that the devices can share the work, and runs the mode."""
    config, workdir = request.config, request.workdir
    if unused := unused_accelerator(platform):
        log.warning("running on the CPU of a machine with %s", unused)
    check_devices(config, platform=platform, num_devices=num_devices, num_processes=num_processes)
    match request.mode:
        case "train":
            from rae_dit.modes.train import train

            train(config, workdir, started=request.started)
        case "sample":
            from rae_dit.modes.sample import sample

            sample(config, workdir)
        case "evaluate":
            from rae_dit.modes.evaluate import evaluate

            evaluate(config, workdir)
        case "reconstruct":
            from rae_dit.modes.reconstruct import reconstruct

            reconstruct(config, workdir)
        case "sweep":
            from rae_dit.modes.sweep import sweep

            sweep(config, workdir)
        case "stats":
            from rae_dit.modes.stats import stats

            stats(config, workdir)
        case "latents":
            from rae_dit.modes.latents import latents

            latents(config, workdir)
        case "probe":
            from rae_dit.modes.probe import probe

            probe(config, workdir)


def set_up_log(process_index: int) -> None:
    """Sends this package's messages to stderr with the time; others' only from warnings up.

    Args:
        process_index: processes other than the first are quiet below warnings.
    """
    log_to_stderr(logging.INFO if process_index == 0 else logging.WARNING)


def run() -> None:
    """Runs the command line."""
    try:
        define_flags(flags.FLAGS)
    except flags.Error as error:  # ml_collections reads the files of --flagfile here already
        exit_with(error)
    try:
        app.run(main, flags_parser=read_request)
    except SystemExit as ended:
        leave_background(ended)  # an error before the first step waits for no compile
        raise


if __name__ == "__main__":
    run()
