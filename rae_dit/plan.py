r"""Command line of the planner: memory and time of a training step on given devices.

    python -m rae_dit.plan --config=configs/dit_dino.py --topology=v5e:16x16 \
        [--config.sharding.fsdp=128 ...] [--output=plan.json] [--nolargest_batch]

--topology is a TPU slice by the chips along its axes (needs libtpu: requirements-tpu.txt), "local"
for the devices of this machine, or "cpu:8" for a CPU that poses as eight. No weights, no images and
no memory are needed. A mistake ends the program with status 2 and one line on stderr.
docs/planning.md explains the output.
"""

import dataclasses
import logging
import os
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from rae_dit.command_line import log_to_stderr, parse_config
from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.config.check import invalid_value
from rae_dit.failures import ending_in_one_line, exit_with
from rae_dit.planning.topology import EXAMPLES, prepare
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import first_unwritable
from rae_dit.storage.places import local_place


@dataclasses.dataclass(frozen=True)
class Request:
    """The parsed command line."""

    config: Config
    topology: str
    output: pathlib.Path | None
    find_largest: bool
    debug: bool = False  # prints tracebacks


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags on `values`."""
    config_flags.DEFINE_config_file("config", help_string="Config file.", flag_values=values)
    flags.DEFINE_string("topology", None, f"Devices: {EXAMPLES}.", flag_values=values)
    flags.DEFINE_string("output", None, "JSON file for the plan.", flag_values=values)
    flags.DEFINE_bool("debug", False, "Print the traceback of an error.", flag_values=values)
    flags.DEFINE_bool(
        "largest_batch", True, "Compile a second batch to find it.", flag_values=values
    )


def read_request(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> Request:
    """Parses the command line and readies the environment for the devices it names.

    Args:
        argv: program name and arguments.
        values: has the flags of `define_flags`.

    Raises:
        SystemExit: status 2 after one line on stderr, when something is wrong.
    """
    own = (ConfigError, StorageError, flags.Error)
    with ending_in_one_line(own, None, debug="--debug" in argv):
        request = parse(argv, values)
        prepare(request.topology, os.environ)
        return request


def parse(argv: list[str], values: flags.FlagValues) -> Request:
    """Parses `argv` into `values`, which must have the flags of `define_flags`.

    Raises:
        ConfigError: a file, field or value that cannot be used, or no topology.
        absl.flags.Error: an unknown flag.
    """
    config = from_config_dict(parse_config(argv, values))
    if not values.topology:
        raise ConfigError(f"--topology: missing; expected one such as {EXAMPLES}")
    output = local_place(values.output, "--output") if values.output else None
    if output is not None and (output.is_dir() or first_unwritable(output.parent) is not None):
        expected = "a file in a directory that can be made or written"
        raise invalid_value("--output", values.output, expected)
    return Request(config, values.topology, output, values.largest_batch, values.debug)


def main(request: Request) -> None:
    """Makes a plan, prints it and writes it to --output, if given.

    Raises:
        SystemExit: status 2 after one line on stderr, when something is wrong.
    """
    with ending_in_one_line((ConfigError,), None, debug=request.debug):
        make(request)


def make(request: Request) -> None:
    """Makes a plan, prints it and writes it; raises what goes wrong."""
    # After `prepare`: jax reads its environment when it is imported.
    from rae_dit.planning import planner
    from rae_dit.planning.report import report
    from rae_dit.storage.files import write_json

    log_to_stderr(logging.ERROR)  # no word about random weights
    logging.getLogger("rae_dit.planning").setLevel(logging.INFO)  # but about compiles
    plan = planner.make_plan(request.config, request.topology, find_largest=request.find_largest)
    sys.stdout.write(report(plan) + "\n")
    if request.output:
        write_json(request.output, planner.to_dict(plan) | {"topology": request.topology})


def run() -> None:
    """Runs the command line."""
    try:
        define_flags(flags.FLAGS)
    except flags.Error as error:  # ml_collections reads the files of --flagfile here already
        exit_with(error)
    app.run(main, flags_parser=read_request)


if __name__ == "__main__":
    run()
