r"""Command line: flags become a `Config`, which goes to one mode.

    python -m rae_dit.main --config=configs/dit_digits.py --workdir=runs/a [--mode=sample] \
        [--config.optim.learning_rate=3e-4] [--config.sample.cfg_interval="(0.1, 1.0)"] \
        [--coordinator_address=HOST:PORT --num_processes=2 --process_id=0]

A mistake ends the program with status 2 and one line on stderr, before jax is imported; --debug
adds the traceback.
"""

import dataclasses
import functools
import logging
import pathlib
import time
import traceback
from contextlib import nullcontext
from typing import Literal, get_args

import absl.logging
from absl import app, flags
from ml_collections import config_flags

from rae_dit.command_line import log_to_stderr, parse_config
from rae_dit.config import Config, ConfigError, check_devices, from_config_dict, to_dict
from rae_dit.config.check import invalid_value
from rae_dit.config_help import define_help_flag, print_help, with_help_value
from rae_dit.failures import ReportedError, exit_with, report, reported
from rae_dit.hardware import unused_accelerator
from rae_dit.multihost import (
    EndTogether,
    ProcessInfo,
    StopAtOnce,
    decide,
    find_process_info,
    initialize,
    require_same,
)
from rae_dit.provenance import running_code, running_command
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import check_writable, first_unwritable
from rae_dit.storage.places import check_output, place

log = logging.getLogger("rae_dit.main")  # as __main__, too

Mode = Literal["train", "sample", "evaluate", "reconstruct", "stats", "latents", "probe", "sweep"]


@dataclasses.dataclass(frozen=True)
class Request:
    """The parsed command line."""

    config: Config
    workdir: pathlib.Path
    mode: Mode
    process: ProcessInfo | None  # None: as the cluster says, or the only one
    debug: bool = False  # prints tracebacks
    dry_run: bool = False  # says what would be done
    started: float = dataclasses.field(default_factory=time.monotonic, compare=False)


def define_flags(values: flags.FlagValues) -> None:
    """Declares --config, --workdir, --mode and the three that name a process on `values`."""
    config_flags.DEFINE_config_file(
        "config",
        help_string="Config file, for example configs/dit_digits.py; change a field with "
        "--config.section.field=value.",
        flag_values=values,
    )
    flags.DEFINE_string("workdir", None, "Directory of the run.", flag_values=values)
    flags.DEFINE_enum("mode", "train", get_args(Mode), "What to do.", flag_values=values)
    flags.DEFINE_bool("debug", False, "Print the traceback of an error.", flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "Say what would be done, with its files and memory.", flag_values=values
    )
    define_help_flag(values)
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of process 0 as all others reach it. This flag and the next two go together; "
        "on TPU pods and under SLURM they are found out (docs/many_hosts.md).",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Processes of the run.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "Which of them this is, from 0.", lower_bound=0, flag_values=values
    )


def read_request(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> Request:
    """Parses the command line and checks everything that needs no device.

    Args:
        argv: program name and arguments.
        values: has the flags of `define_flags`.

    Raises:
        SystemExit: status 2 after one line on stderr, when something is wrong.
    """
    own = (ConfigError, StorageError, flags.Error)
    try:
        with reported(own, None, debug="--debug" in argv):
            return parse(argv, values)
    except (*own, ReportedError) as error:
        exit_with(error)


def parse(argv: list[str], values: flags.FlagValues) -> Request:
    """Parses `argv` into `values`, which must have the flags of `define_flags`.

    Raises:
        ConfigError: a path, field or value that cannot be used.
        StorageError: a URL that cannot be written to.
        absl.flags.Error: an unknown flag or mode.
    """
    settings = parse_config(with_help_value(argv), values)
    if values.help_config:
        print_help(values.help_config, settings)
    workdir = find_workdir(values.workdir, written=values.mode != "sample")
    process = find_process_info(values.coordinator_address, values.num_processes, values.process_id)
    config = from_config_dict(settings)
    check_output("sample.output_dir", config.sample.output_dir)
    check_output("stats.output", config.stats.output)
    check_output("latents.output", config.latents.output)
    check_output("evaluate.reference_cache", config.evaluate.reference_cache)
    return Request(config, workdir, values.mode, process, values.debug, values.dry_run)


def find_workdir(text: str | None, *, written: bool) -> pathlib.Path:
    """Checks the directory of the run, which need not exist yet.

    Args:
        text: value of the flag.
        written: whether the mode writes there.

    Raises:
        ConfigError: none is given, or it could not be made or written.
        StorageError: a URL that cannot be written to.
    """
    if not text:
        raise ConfigError("--workdir: missing; expected the directory of the run such as runs/a")
    if text.startswith("-"):  # a flag that took the next one for its value
        raise invalid_value("--workdir", text, "the directory of the run such as runs/a")
    check_output("--workdir", text)
    workdir = place(text)
    blocked = first_unwritable(workdir)
    if blocked is not None and (written or not blocked.is_dir()):
        raise invalid_value("--workdir", text, f"a writable directory; {blocked} is not writable")
    return workdir


def main(request: Request) -> None:
    """Runs one mode.

    Raises:
        SystemExit: status 2 after one line on stderr, when something is wrong; the traceback of
            what no message of ours explains is in a file of the workdir.
    """
    try:
        with reported((), request.workdir, debug=request.debug):
            start(request)
    except ReportedError as error:
        exit_with(error)


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
    app.run(main, flags_parser=read_request)


if __name__ == "__main__":
    run()
