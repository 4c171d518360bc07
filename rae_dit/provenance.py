"""Provenance: what a result depends on; refuses to continue a result of other settings."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from rae_dit.config import ConfigError
from rae_dit.config.compatibility import added
from rae_dit.storage.places import place
from rae_dit.version import __version__

_SHOWN = 60  # characters of a value in a message
_MISSING = object()


class Change(NamedTuple):
    """A value that differs; prints as 'name: got X; expected Y'."""

    name: str
    got: Any
    expected: Any

    def __str__(self) -> str:
        """Returns one line with both values, long ones cut."""
        return f"{self.name}: got {_show(self.got)}; expected {_show(self.expected)}"


@dataclass(frozen=True)
class Provenance:
    """Everything that a result depends on, as JSON values.

    Attributes:
        values: by name, as JSON gives them back (tuples are lists); may be nested.
    """

    values: Mapping[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Makes the provenance of JSON values.

        Raises:
            TypeError: JSON cannot express a value.
        """
        return cls(json.loads(json.dumps(values)))

    def __or__(self, more: Mapping[str, Any]) -> Self:
        """Returns these values and more."""
        return self.of({**self.values, **more})

    def without(self, *names: str) -> Self:
        """Returns the values less some."""
        return self.of({name: value for name, value in self.values.items() if name not in names})

    def changes(self, found: Mapping[str, Any], *, partly: bool = False) -> list[Change]:
        """Compares with what a file says, by dotted name.

        A value that a file lacks because it is older than the value is what it was then
        (config/compatibility).

        Args:
            found: values in the file.
            partly: these values are only a part, so that others in the file are not compared.
        """
        expected, got = _flat(self.values), _flat(found)
        for name in expected.keys() - got.keys():
            with contextlib.suppress(KeyError):
                got[name] = added(name)
        names = expected.keys() if partly else expected.keys() | got.keys()
        pairs = ((name, got.get(name, _MISSING), expected.get(name, _MISSING)) for name in names)
        return sorted(Change(*pair) for pair in pairs if pair[1] != pair[2])

    def require_same(
        self,
        found: Mapping[str, Any],
        where: str,
        remedy: str,
        *,
        partly: bool = False,
        error: type[Exception] = ConfigError,
    ) -> None:
        """Refuses a file of other settings.

        Args:
            found: values in the file.
            where: the file, or the field that names it.
            remedy: what to do, the end of a sentence.
            partly: see `changes`.
            error: raised if a value differs; its message is one line.
        """
        if changes := self.changes(found, partly=partly):
            raise error(f"{where}: {', '.join(map(str, changes))}. {remedy}")


def file_record(path: str) -> dict[str, str] | None:
    """Returns a path and, if it is a file, its SHA-256, for a report; None for ''."""
    if not path:
        return None
    return {"path": path} | ({"sha256": file_hash(path)} if place(path).is_file() else {})


def file_hash(path: str | Path) -> str:
    """Returns the SHA-256 of a file; computed again only if its size or time changes."""
    path = place(path)
    status = path.stat()
    return _file_hash(path, status.st_size, status.st_mtime_ns)


def software() -> dict[str, str]:
    """Returns the versions of rae_dit and JAX, for a report."""
    return {"version": __version__, "jax": importlib.metadata.version("jax")}


def running_code() -> dict[str, str]:
    """Returns what must be the same on all hosts of a run: sources and packages that compute."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"rae_dit": f"{__version__}, sources {digest.hexdigest()[:12]}"} | {
        name: importlib.metadata.version(name) for name in packages
    }


def running_command(mode: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns what else must be the same on all hosts of a run: the mode and the settings.

    Paths may differ, such as those below a home directory: files are listed by one process, and
    weights are compared by their checksums. So may `data.num_workers`, with a host's cores.

    Args:
        mode: of the command.
        config: its values.
    """
    settings = {
        f"--config.{name}": repr(value)
        for name, value in _flat(config).items()
        if name != "data.num_workers" and not (isinstance(value, str) and "/" in value)
    }
    return {"--mode": mode} | settings


@functools.lru_cache(maxsize=16)
def _file_hash(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{below}": leaf for below, leaf in _flat(value).items()}
        else:
            found[name] = value
    return found


def _show(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
