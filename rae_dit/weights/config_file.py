"""JSON files beside weights, read as data: no code that they name is imported.

Fields come as their writers left them: null, 4.0 for 4, [14, 14] for 14. A value is taken where it
can only mean one thing, and refused in one line where not.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rae_dit.architecture import Triple
from rae_dit.weights.errors import WeightsError, refuse_pointer

LARGEST = 2**20  # of any size in a config; beyond that it is a mistake


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        WeightsError: the file is not there, is a Git LFS pointer, or is no JSON object.
    """
    try:
        refuse_pointer(path)
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: got {type(error).__name__} ({reason}); expected JSON"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: got a {type(content).__name__}; expected a JSON object")
    return content


def refuse_other(path: Path, config: Mapping[str, Any]) -> None:
    """Refuses to write a config where there is one of something else already.

    Raises:
        WeightsError: there is, or it is damaged.
    """
    if path.exists() and read_json(path) != json.loads(json.dumps(config)):
        raise WeightsError(f"{path}: got the config of something else; expected a new directory")


def read_fields(
    config: Mapping[str, Any], defaults: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Reads the fields of `defaults`, each of the type of its default, which a missing one gets.

    Raises:
        WeightsError: a value has another type, or is out of range.
    """
    if not isinstance(config, Mapping):
        raise WeightsError(f"{path}: got {config!r}; expected fields with their values")
    return {
        name: read_field(config.get(name, default), default, name, path)
        for name, default in defaults.items()
    }


def read_field(value: Any, like: Any, name: str, path: Path) -> Any:
    """Converts a value to the type of another: bool, str, int (>= 0) or float (finite).

    Raises:
        WeightsError: it is of another type, or out of range.
    """
    kinds = {bool: "true or false", str: "a string", int: "a whole number", float: "a number"}
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1] and type(like) is int:
        value = value[0]  # a side for each axis
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match like:
        case bool() if isinstance(value, bool):
            return value
        case str() if isinstance(value, str):
            return value
        case int() if not isinstance(like, bool) and number and 0 <= value <= LARGEST:
            if value == int(value):
                return int(value)
        case float() if number and abs(value) <= LARGEST and math.isfinite(value):
            return float(value)
    raise WeightsError(f"{name}: got {value!r}; expected {kinds[type(like)]}, in {path}")


def read_triple(value: Any, name: str, path: Path, *, above: float = -math.inf) -> Triple:
    """Reads a number for each of three channels, as images in [0, 1] have them.

    Raises:
        WeightsError: there are not three numbers, or one is out of range.
    """
    numbers = value if isinstance(value, list) else []
    right = [
        isinstance(number, int | float) and not isinstance(number, bool) and above < number <= 1
        for number in numbers
    ]
    if len(right) != 3 or not all(right) or min(numbers) < 0:
        raise WeightsError(f"{name}: got {value!r}; expected three numbers in [0, 1], in {path}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
