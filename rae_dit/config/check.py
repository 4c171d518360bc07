"""Strict conversion of nested values into frozen dataclasses, driven by their type declarations.

`rae_dit/config` declares the fields; this file knows none of them by name.
Every mistake is a `ConfigError` of one line: field, value, what is allowed.
"""

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from rae_dit.ranges import Range


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line a user can act on."""


def invalid_value(field: str, value: object, expected: str) -> ConfigError:
    """Makes the error 'field: got VALUE; expected ...' for the caller to raise."""
    return ConfigError(f"{field}: got {show(value)}; expected {expected}")


def show(value: object) -> str:
    """Formats a value on one line; a nested section is called 'a section', not printed."""
    return "a section" if isinstance(value, Mapping) else repr(value)


def describe(declared: Any) -> str:
    """Describes what a declared type allows: 'an int >= 1', "one of 'euler', 'heun'"."""
    base, limits, optional = _unwrap(declared)
    words = {bool: "True or False", int: "an int", float: "a finite float", str: "a string"}
    if dataclasses.is_dataclass(base):
        text = f"a section with the fields {', '.join(typing.get_type_hints(base))}"
    elif get_origin(base) is Literal:
        text = f"one of {', '.join(repr(choice) for choice in get_args(base))}"
    elif get_origin(base) is tuple:
        elements = get_args(base)
        size = "any number of elements" if elements[-1] is Ellipsis else f"{len(elements)} elements"
        text = f"a tuple of {size}, each {describe(elements[0])}"
    else:
        text = words[base]
    return text + (f" {limits}" if limits else "") + (" or None" if optional else "")


def convert(declared: Any, value: object, path: str) -> Any:
    """Converts `value` to the declared type.

    Args:
        declared: bool, int, float, str, a Literal of strings, a tuple of these, any of them with a
          `Range` or `| None`, or a dataclass made of them.
        value: what the config holds; a mapping for a dataclass. An int is taken for a float (a bool
          never for a number), a list for a tuple (JSON has no tuples), ~ for the home directory.
        path: dotted name of the field, '' for the whole config.

    Returns:
        The converted value.

    Raises:
        ConfigError: unknown, missing, wrongly typed or impossible field.
    """
    base, limits, optional = _unwrap(declared)
    if value is None and optional:
        return None
    if dataclasses.is_dataclass(base):
        return _convert_section(base, value, path)
    if get_origin(base) is tuple:
        return _convert_tuple(declared, get_args(base), value, path)
    if get_origin(base) is Literal:
        choices = get_args(base)
        if not isinstance(value, str) or value not in choices:
            raise invalid_value(path, value, describe(declared) + did_you_mean(value, choices))
        return value
    if base is float and type(value) is int:
        value = float(value)
    if base is str and isinstance(value, str):
        value = expand_home(value)
    typed = type(value) is base  # not isinstance: True is an int there
    if not typed or (isinstance(value, int | float) and not _allowed(value, limits)):
        raise invalid_value(path, value, describe(declared))
    return value


def declared_type(section: Any, path: str, value: object) -> Any:
    """Returns the declared type of a dotted path below a dataclass.

    Args:
        section: the dataclass.
        path: dotted name of the field.
        value: what was given for it, for the error message.

    Raises:
        ConfigError: no such field; names the nearest one.
    """
    declared, walked = section, ""
    for name in path.split("."):
        if not dataclasses.is_dataclass(declared):
            raise ConfigError(
                f"{path}: got {show(value)}; {walked} is not a section; it is {describe(declared)}"
            )
        hints = typing.get_type_hints(declared, include_extras=True)
        if name not in hints:
            _raise_unknown(declared, walked, name, path, value)
        declared, walked = hints[name], join(walked, name)
    return declared


def expand_home(text: str) -> str:
    """Replaces ~ or ~user at the beginning, as a shell does; only paths begin so."""
    return os.path.expanduser(text)


def did_you_mean(name: object, choices: typing.Iterable[str]) -> str:
    """Returns '; did you mean X?' if a choice is similar to `name`, else ''."""
    near = difflib.get_close_matches(str(name), list(choices), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def join(path: str, name: str) -> str:
    """Joins a field's name to the dotted path of its section ('' = the whole config)."""
    return f"{path}.{name}" if path else name


def _unwrap(declared: Any) -> tuple[Any, Range | None, bool]:
    """Splits `Annotated[base, Range] | None` into (base, range or None, None allowed)."""
    optional = get_origin(declared) in (Union, types.UnionType)
    if optional:
        (declared,) = (kind for kind in get_args(declared) if kind is not types.NoneType)
    if get_origin(declared) is Annotated:
        base, limits = get_args(declared)
        return base, limits, optional
    return declared, None, optional


def _allowed(number: float, limits: Range | None) -> bool:
    return math.isfinite(number) and (limits is None or limits.holds(number))


def _convert_section(section: Any, value: object, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise invalid_value(path, value, describe(section))
    hints = typing.get_type_hints(section, include_extras=True)
    for name in value:
        if name not in hints:
            _raise_unknown(section, path, name, join(path, name), value[name])
    for name, declared in hints.items():
        if name not in value:
            raise ConfigError(
                f"{join(path, name)}: missing; expected {describe(declared)}; "
                "configs/default.py shows every field"
            )
    return section(**{name: convert(hints[name], value[name], join(path, name)) for name in hints})


def _convert_tuple(declared: Any, elements: tuple[Any, ...], value: object, path: str) -> Any:
    if not isinstance(value, tuple | list):
        raise invalid_value(path, value, describe(declared))
    if elements[-1] is Ellipsis:
        elements = (elements[0],) * len(value)
    if len(value) != len(elements):
        raise invalid_value(path, value, describe(declared))
    pairs = enumerate(zip(elements, value, strict=True))
    return tuple(convert(kind, element, f"{path}[{i}]") for i, (kind, element) in pairs)


def _raise_unknown(section: Any, parent: str, name: str, path: str, value: object) -> NoReturn:
    """Raises with the nearest field: a similar name in the section, else the same one elsewhere."""
    fields = {field.name: field.type for field in dataclasses.fields(section)}
    near = [join(parent, match) for match in difflib.get_close_matches(name, fields, n=1)]
    elsewhere = [
        join(join(parent, other), name)
        for other, kind in fields.items()
        if dataclasses.is_dataclass(kind) and name in typing.get_type_hints(kind)
    ]
    rest = path.removeprefix(join(parent, name))
    nearest = [f"{match}{rest}" for match in near] or elsewhere
    hint = (
        f"did you mean {' or '.join(nearest)}?"
        if nearest
        else f"the fields are {', '.join(fields)}"
    )
    raise ConfigError(f"{path}: got {show(value)}; there is no such field; {hint}")
