"""Parsing of --config and its overrides, for all commands.

ml_collections and absl fail in many ways on a wrong file or field; here each becomes one line.
"""

import contextlib
import difflib
import logging
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator

import ml_collections
from absl import flags

from rae_dit.config import ConfigError, describe_field
from rae_dit.config.check import expand_home
from rae_dit.config_files import config_directory, find_config_file, importable_configs

NO_CONFIG = "--config: missing; expected a config file such as configs/dit_digits.py"


def parse_config(argv: list[str], values: flags.FlagValues) -> ml_collections.ConfigDict:
    """Parses `argv` into `values`, which must have a flag --config of a config file.

    Returns:
        The values of the file and the overrides, not yet checked.

    Raises:
        ConfigError: a path or field that does not exist, or a value of the wrong kind.
        absl.flags.Error: an unknown flag.
        SystemExit: status 0 after --help.
    """
    argv = [expand_home_in(argument) for argument in argv]
    argv = [argv[0], *with_config_found(values.read_flags_from_files(argv[1:], force_gnu=False))]
    arguments = argv[1:]
    overrides = find_settings(r"config\.([^=]*)", arguments)
    # ml_collections fails on a wrong file or field with exceptions of many kinds and a traceback,
    # so both are checked first.
    files = [value for _, value in find_settings("(config)", arguments)]
    if overrides and not files:
        raise ConfigError(NO_CONFIG)
    for file in files:
        check_config_file(file)
    expected = {path: describe_field(path, value) for path, value in overrides}
    for path, value in overrides:
        if expected[path].startswith("a tuple") and value.lstrip().startswith("{"):
            raise ConfigError(f"{path}: got {value!r}; expected {expected[path]}")  # sets: no order
    try:
        with quiet_absl(), importable_configs([pathlib.Path(file) for file in files]):
            extra = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        for path, value in overrides:
            if str(error).startswith(f"flag --config.{path}={value}:"):
                allowed = expected[path].removesuffix(" or None")  # only a file can say None
                raise ConfigError(f"{path}: got {value!r}; expected {allowed}") from error
        if files and "Traceback (most recent call last)" in str(error):  # of the file's own code
            last = str(error).strip().splitlines()[-1].strip()
            raise ConfigError(
                f"--config: got {files[-1]!r}, which ended in {last}; expected a file whose "
                "get_config() returns a ConfigDict"
            ) from error
        raise
    except (flags.Error, ConfigError):
        raise
    except Exception as error:  # of the config file's own code, or of ml_collections
        raise ConfigError(describe_failure(error, files[-1:], overrides)) from error
    except SystemExit as end:
        if failing_line(end, files[-1:]):
            raise ConfigError(describe_failure(end, files[-1:], overrides)) from end
        sys.exit(0)  # --help and its like have printed, which absl counts as a failure
    if extra:
        raise ConfigError(
            f"unexpected argument {extra[0]!r}; write changes as --config.field=value"
        )
    if not files:
        raise ConfigError(NO_CONFIG)
    if not isinstance(values.config, ml_collections.ConfigDict):
        kind = type(values.config).__name__
        raise ConfigError(f"--config: get_config() returned {kind}; expected a ConfigDict")
    return values.config


def expand_home_in(argument: str) -> str:
    """Replaces ~ in --flag=~/path, where shells leave it."""
    name, equals, value = argument.partition("=")
    if not equals or not name.startswith("-"):
        return expand_home(argument)
    return name + equals + expand_home(value)


def with_config_found(arguments: list[str]) -> list[str]:
    """Replaces the value of --config by the file that it means."""
    result = list(arguments)
    for i, argument in enumerate(arguments):
        if re.fullmatch(r"--?config=.*", argument, re.DOTALL):
            name, _, value = argument.partition("=")
            result[i] = f"{name}={find_config_file(value)}"
        elif argument in ("-config", "--config") and i + 1 < len(arguments):
            result[i + 1] = str(find_config_file(arguments[i + 1]))
    return result


def log_to_stderr(level: int) -> None:
    """Sends this package's messages from a level on to stderr, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("rae_dit")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(level)


@contextlib.contextmanager
def quiet_absl() -> Iterator[None]:
    """Keeps absl from warnings about a config file, which end in an error of one line anyway."""
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def failing_line(error: BaseException, files: list[str]) -> int | None:
    """Finds the line of one of these files that an error came through last."""
    names = {str(pathlib.Path(file).resolve()) for file in files}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if str(pathlib.Path(frame.filename).resolve()) in names:
            return frame.lineno
    return None


def describe_failure(
    error: BaseException, files: list[str], overrides: list[tuple[str, str]]
) -> str:
    """Describes an error that was raised while a config file ran, or its fields were changed."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    line = failing_line(error, files)
    if line is not None:
        return (
            f"--config: got {files[0]!r}, which ended in {text} (line {line}); expected a file "
            "whose get_config() returns a ConfigDict"
        )
    if isinstance(error, SyntaxError | OSError | ImportError | UnicodeError) or not overrides:
        return f"--config: got {', '.join(files)!r}: {text}; expected a config file in Python"
    changed = ", ".join(f"--config.{path}={value}" for path, value in overrides)
    return f"{changed}: got {text}; expected values of the fields' types"


def find_settings(name: str, arguments: list[str]) -> list[tuple[str, str]]:
    """Finds --name=value and --name value among the arguments.

    Args:
        name: regular expression with one group.
        arguments: command line without the program's name.

    Returns:
        Pairs of what the group matched and the text of the value, in order.
    """
    found = []
    for here, following in zip(arguments, [*arguments, ""][1:], strict=True):
        match = re.fullmatch(rf"--?(?:no)?{name}(=.*)?", here, re.DOTALL)
        if match:
            found.append((match[1], following if match[2] is None else match[2][1:]))
    return found


def check_config_file(file: str) -> None:
    """Checks that the file given as --config exists.

    Raises:
        ConfigError: it does not; suggests the nearest file in that directory.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("[!_]*.py")]
        beside += [f"configs/{other.name}" for other in config_directory().glob("[!_]*.py")]
        near = difflib.get_close_matches(str(path), beside, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--config: got {file!r}; expected a config file{hint}")
