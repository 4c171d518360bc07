"""One line for every error that ends a command, whichever library raised it.

The errors of this project say all in their message. Of any other, the line gives the kind, the
first line of its message and the place in this project; its traceback goes to a file that the line
names, or to stderr with --debug.
"""

import datetime as dt
import errno
import os
import pathlib
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rae_dit.storage.places import is_url

STATUS = 2
LENGTH = 400  # characters of a message
PACKAGE = pathlib.Path(__file__).parent
# A message that says what was got and what was expected needs no more words.
COMPLETE = re.compile(r"[^\n]*: (got |missing)[^\n]*; expected [^\n]*")
# What to do about errors that are no fault of this program: kinds, a part of the message -> advice.
ADVICE: tuple[tuple[tuple[type[BaseException], ...], str, str], ...] = (
    ((Exception,), "RESOURCE_EXHAUSTED", "a smaller data.batch_size, compute.remat='full' or fsdp"),
    ((MemoryError,), "", "a smaller batch, fewer data.num_workers, or more memory"),
    ((ImportError,), "", "the packages of requirements.txt to be installed"),
    ((FileNotFoundError, NotADirectoryError), "", "a path that exists"),
    ((PermissionError,), "", "a path that this user may use"),
    ((OSError,), os.strerror(errno.ENOSPC), "free space there"),
    ((OSError,), os.strerror(errno.EDQUOT), "a larger quota there"),
    ((OSError,), "", "the file, disk or network to work"),
)
UNKNOWN = "none here; if your input is right, this is a bug: report it with its traceback"


@contextmanager
def ending_in_one_line(
    own: tuple[type[Exception], ...], directory: pathlib.Path | None, *, debug: bool
) -> Iterator[None]:
    """Ends the program with status 2 and one line on stderr at any error.

    Args:
        own: errors whose message says all.
        directory: for the file of the traceback of any other, if it is on a disk and can be
            written; else the system's directory of temporary files.
        debug: whether to print the traceback, too.

    Raises:
        SystemExit: in place of any error.
    """
    try:
        yield
    except Exception as error:
        exit_with(report(error, own, directory, debug=debug))


def report(
    error: BaseException,
    own: tuple[type[Exception], ...],
    directory: pathlib.Path | None,
    *,
    debug: bool,
) -> str:
    """Returns the line of an error; writes the traceback of one that is not this project's own.

    Arguments are those of `ending_in_one_line`.
    """
    if debug:
        traceback.print_exception(error)
    if isinstance(error, own):
        return str(error)
    place = write_traceback(error, directory)
    return f"{describe_error(error)}; traceback in {place}"


def describe_error(error: BaseException) -> str:
    """Describes an error of another library, or a bug, in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LENGTH else f"{text[:LENGTH]}…"
    if isinstance(error, ValueError) and COMPLETE.fullmatch(text):
        return text
    advice = next(
        (words for kinds, part, words in ADVICE if isinstance(error, kinds) and part in str(error)),
        UNKNOWN,
    )
    name = type(error).__name__
    return f"{where(error)}: got {name}{': ' * bool(text)}{text}; expected {advice}"


def where(error: BaseException) -> str:
    """Returns file and line in this package that the error came through last."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = pathlib.Path(frame.filename)
        if PACKAGE in path.parents:
            return f"{path.relative_to(PACKAGE.parent)}:{frame.lineno}"
    return "rae_dit"


def write_traceback(error: BaseException, directory: pathlib.Path | None) -> pathlib.Path:
    """Appends a traceback to `traceback-PID.log` and returns the file's path."""
    text = "".join(traceback.format_exception(error))
    entry = f"{dt.datetime.now().astimezone():%F %T %z} {' '.join(sys.argv)}\n{text}\n"
    for place in (directory, pathlib.Path(tempfile.gettempdir())):
        if place is not None and not is_url(place) and place.is_dir():
            path = place / f"traceback-{os.getpid()}.log"
            try:
                with path.open("a", errors="backslashreplace") as file:
                    file.write(entry)
            except OSError:
                continue
            return path
    sys.stderr.write(entry)
    return pathlib.Path("stderr")


def exit_with(error: BaseException | str) -> NoReturn:
    """Ends the program with status 2 and the error or its message on stderr, in one line."""
    print(f"rae_dit: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(STATUS)
