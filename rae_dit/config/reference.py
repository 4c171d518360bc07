"""Reference of every field: type, range and meaning, read off the sources of the dataclasses."""

import ast
import dataclasses
import inspect
import re
import shlex
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rae_dit.config import Config
from rae_dit.config.check import ConfigError, describe, join

INDENT = " " * 6


class Field(NamedTuple):
    """One field of the config.

    Attributes:
        path: dotted name, as after --config.
        allowed: type and range in words.
        meaning: its comment; "" if its name says all.
    """

    path: str
    allowed: str
    meaning: str


def sections() -> Iterator[tuple[str, str, list[Field]]]:
    """Yields (name, meaning, fields) of every section; the first, "", has the fields outside."""
    hints = typing.get_type_hints(Config, include_extras=True)
    names = [name for name, kind in hints.items() if dataclasses.is_dataclass(kind)]
    yield "", "Fields of no section.", [f for f in fields(Config, "") if f.path not in names]
    for name in names:
        first = " ".join((inspect.getdoc(hints[name]) or "").split("\n\n")[0].split())
        yield name, first, fields(hints[name], name)


def fields(section: Any, path: str) -> list[Field]:
    """Lists the fields of a dataclass, in order."""
    hints = typing.get_type_hints(section, include_extras=True)
    said = meanings(section)
    return [
        Field(join(path, field.name), describe(hints[field.name]), said.get(field.name, ""))
        for field in dataclasses.fields(section)
    ]


def meanings(section: Any) -> dict[str, str]:
    """Reads what the source says of each field: comments above and beside it, or Attributes."""
    found: dict[str, str] = {}
    bases = [base for base in section.__mro__ if "__dataclass_fields__" in vars(base)]
    for base in reversed(bases):
        found |= commented(textwrap.dedent(inspect.getsource(base)))
        found |= listed(inspect.getdoc(base) or "")
    return found


def commented(source: str) -> dict[str, str]:
    """Reads the comments of the fields of a class: those directly above, then the one beside."""
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    found = {}
    for node in getattr(tree, "body", ()):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
            text = [line.partition("#")[2].strip() for line in lines[first : node.end_lineno]]
            found[node.target.id] = " ".join(part for part in text if part)
    return {name: text for name, text in found.items() if text}


def listed(docstring: str) -> dict[str, str]:
    """Reads the Attributes section of a Google-style docstring."""
    _, _, rest = docstring.partition("\nAttributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", rest, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def help_text(wanted: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Explains fields.

    Args:
        wanted: "all", a section or a field.
        values: of the config, sections nested.
        defaults: of configs/default.py, likewise.

    Raises:
        ConfigError: there is no such section or field.
    """
    found = []
    for name, meaning, members in sections():
        chosen = [f for f in members if wanted in ("all", name, f.path)]
        if chosen:
            lines = explained(chosen, values, defaults)
            found.append("\n".join([f"{name or 'config'}: {meaning}", *lines]))
    if not found:
        names = ", ".join(name for name, _, _ in sections() if name)
        raise ConfigError(
            f"--help_config: got {wanted!r}; expected a field such as optim.decay, or one of the "
            f"sections {names}"
        )
    return "\n\n".join(found)


def explained(
    members: list[Field], values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    """Yields the lines about some fields: value, default if it differs, type, meaning."""
    for field in members:
        value, default = look_up(values, field.path), look_up(defaults, field.path)
        differs = "" if value == default else f"   (configs/default.py: {typed(default)})"
        yield f"\n  --config.{field.path}={typed(value)}{differs}"
        for text in (field.allowed, field.meaning):
            yield from textwrap.wrap(text, 96, initial_indent=INDENT, subsequent_indent=INDENT)


def typed(value: Any) -> str:
    """Writes a value as it is typed on a command line; None can only be set in a file."""
    return shlex.quote(re.sub(r"(?<=,) ", "", str(value))) if value != "" else ""


def look_up(values: Mapping[str, Any], path: str) -> Any:
    """Returns the value at a dotted path; None if there is none."""
    value: Any = values
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
