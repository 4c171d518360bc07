"""Paths from what a user wrote: a local path, or the URL of an object or prefix in a bucket."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from rae_dit.storage.errors import StorageError

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
# What would be a local directory called "gs:" or "GS:", and was hardly meant so.
_NEARLY_URL = re.compile(r"[A-Za-z][\w+.-]+:/")
# Scheme -> module that reads it, and how it is installed.
_MODULES = {
    "gs": ("gcsfs", "pip install 'rae_dit[gcs]'"),
    "s3": ("s3fs", "pip install 's3fs' or 'rae_dit[s3]'"),
    "hf": ("huggingface_hub", "pip install huggingface_hub"),
}
COMMITTED = "commit_success.txt"  # by which Orbax marks a whole checkpoint where nothing is renamed


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tells whether a path is a URL such as gs://bucket/runs/a."""
    return _URL.match(os.fspath(path)) is not None


def place(path: str | os.PathLike[str]) -> Path:
    """Makes a path of what a user wrote.

    Args:
        path: local, with `~` for the home directory, or a URL of gs://, s3:// or hf://.

    Returns:
        A `pathlib.Path`; for a URL a `RemotePath`, which has the same methods.

    Raises:
        StorageError: see `check_url`.
    """
    text = os.fspath(path)
    check_url(text)
    match = _URL.match(text)
    if match is None:
        return Path(text).expanduser()
    from rae_dit.storage.remote import RemotePath, register  # late: etils takes a second to import

    register(match["scheme"])
    found: Any = path if isinstance(path, RemotePath) else RemotePath(text)
    return found


def local_place(path: str, field: str) -> Path:
    """Makes a path of what can be on this machine alone.

    Args:
        path: as for `place`.
        field: that holds it, for the message.

    Raises:
        StorageError: it is a URL.
    """
    check_url(path, field)
    if is_url(path):
        raise StorageError(f"{field}: got {path!r}; expected a path on this machine, not a URL")
    return Path(path).expanduser()


def checkpoint_path(path: str | os.PathLike[str]) -> Any:
    """Makes the absolute path of a checkpoint as Orbax takes it (`etils.epath.Path`)."""
    if is_url(path):
        return place(path)
    from etils import epath

    return epath.Path(path).resolve()


def check_url(text: str, field: str = "") -> None:
    """Checks that a URL can be read here; passes over local paths.

    Args:
        text: a path or URL.
        field: that holds it, for the message.

    Raises:
        StorageError: its scheme is not known or not written as in a URL, its package is not
            installed, or no bucket is named.
    """
    match = _URL.match(text)
    start = f"{field}: " * bool(field)
    if match is None and not _NEARLY_URL.match(text):
        return
    if match is None or match["scheme"] not in _MODULES:
        expected = "a local path or a URL of gs://, s3:// or hf://"
        raise StorageError(f"{start}got {text!r}; expected {expected}")
    module, install = _MODULES[match["scheme"]]
    if importlib.util.find_spec(module) is None:
        raise StorageError(f"{start}got {text!r}; expected the package {module}: {install}")
    if not match["rest"].strip("/"):
        raise StorageError(f"{start}got {text!r}; expected a bucket, such as {match['scheme']}://b")


def check_output(field: str, text: str) -> None:
    """Checks that results can be written to a path or URL.

    Args:
        field: that holds it, for the message.
        text: a path or URL; '' is passed over.

    Raises:
        StorageError: it is a URL, but not of gs://, or see `check_url`.
    """
    match = _URL.match(text)
    if match is not None and match["scheme"] != "gs":
        expected = "gs://BUCKET/... or a path on this machine, where a bucket may be mounted"
        reason = "; Orbax writes no checkpoints to s3:// (docs/many_hosts.md)"
        reason = reason if match["scheme"] == "s3" else ""
        raise StorageError(f"{field}: got {text!r}; expected {expected}{reason}")
    check_url(text, field)


def is_committed(step: Path) -> bool:
    """Tells whether the directory of a checkpoint is whole.

    A local one gets its name when it is; in a bucket it has its name from the first object on.
    """
    return not is_url(step) or (step / COMMITTED).is_file()
