"""The command line of `rae_dit.main`: flags become a checked `Request`, without importing jax."""

import dataclasses
import pathlib
import time
from typing import Literal, get_args

from absl import flags
from ml_collections import config_flags

from rae_dit.command_line import parse_config
from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.config.check import invalid_value
from rae_dit.config_help import define_help_flag, print_help, with_help_value
from rae_dit.failures import ending_in_one_line
from rae_dit.multihost import ProcessInfo, find_process_info
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import first_unwritable
from rae_dit.storage.places import check_output, place

flags.disclaim_key_flags()  # they are main's, whose --help shows them

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
    with ending_in_one_line(own, None, debug="--debug" in argv):
        return parse(argv, values)


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
