"""--help_config: every field of a config explained on the command line."""

import sys
from typing import NoReturn

import ml_collections
from absl import flags

from rae_dit.config.reference import help_text
from rae_dit.config_files import importable_configs

FLAG = "help_config"


def define_help_flag(values: flags.FlagValues) -> None:
    """Declares --help_config on `values`."""
    flags.DEFINE_string(
        FLAG,
        None,
        "Explain the fields of the config: all, a section such as optim, or a field.",
        flag_values=values,
    )


def with_help_value(argv: list[str]) -> list[str]:
    """Completes --help_config without a value or without --config: all fields, default.py."""
    if not any(argument.lstrip("-").split("=")[0] == FLAG for argument in argv[1:]):
        return argv
    has_config = any(argument.lstrip("-").split("=")[0] == "config" for argument in argv[1:])
    completed = [f"--{FLAG}=all" if a.lstrip("-") == FLAG else a for a in argv[1:]]
    return [argv[0], *([] if has_config else ["--config=default.py"]), *completed]


def print_help(wanted: str, settings: ml_collections.ConfigDict) -> NoReturn:
    """Prints the fields and ends the program.

    Args:
        wanted: "all", a section or a field.
        settings: values of the config file and the command line.

    Raises:
        ConfigError: there is no such field.
        SystemExit: status 0 after printing.
    """
    with importable_configs([]):
        from configs import default

        defaults = default.get_config().to_dict()
    print(help_text(wanted, settings.to_dict(), defaults))
    sys.exit(0)
