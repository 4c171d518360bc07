"""Shapes of a file's tensors: those that must be there, and what their numbers mean."""

import math
import re
from collections.abc import Iterable

from rae_dit.weights.errors import WeightsError
from rae_dit.weights.mapping import Tensors, tensor_shape

MAX_GRID = 512  # tokens a side


def check_positions(
    name: str, shape: tuple[int, ...], *, tokens: int, width: int | None = None
) -> None:
    """Refuses a table of positions for other tokens or another width than the network's.

    Positions are computed before they are compared, from sizes that other tensors tell: such a
    table would be far larger than the file.

    Args:
        name: of the table.
        shape: of the table, [..., N, D].
        tokens: N.
        width: D; None allows any.

    Raises:
        WeightsError: it does not fit, or is for more than MAX_GRID x MAX_GRID tokens and CLS.
    """
    if shape[-2:] != (tokens, shape[-1] if width is None else width):
        expected = f"{tokens} rows" if width is None else f"{tokens} rows of {width} numbers"
        raise WeightsError(f"{name}: got shape {shape}; expected {expected}")
    if not 0 < tokens <= MAX_GRID**2 + 1:
        raise WeightsError(f"{name}: got {tokens} tokens; expected 1 to {MAX_GRID**2}")


def divide(width: int, head_width: int, name: str) -> int:
    """Returns the number of heads of a width.

    Raises:
        WeightsError: it is not whole.
    """
    if not head_width or width % head_width:
        raise WeightsError(f"{name}: got heads of {head_width}; expected a divisor of {width}")
    return width // head_width


def block_numbers(names: Iterable[str], prefix: str) -> range:
    """Returns the numbers N of all names "prefix.N. ...": 0, 1, ... without a gap.

    Raises:
        WeightsError: if there are none, or some are missing.
    """
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in names)
    numbers = {int(match[1]) for match in matches if match}
    gap = next((number for number in range(len(numbers) + 1) if number not in numbers), 0)
    if gap < len(numbers) or not numbers:
        raise WeightsError(f"{prefix}.{gap}.*: missing; expected a block; is it another model?")
    return range(len(numbers))


def shape_of(
    tensors: Tensors, name: str, what: str, dimensions: int | None = None
) -> tuple[int, ...]:
    """Returns the shape of a tensor that must be there.

    Args:
        tensors: the file's.
        name: of the tensor.
        what: the kind of model, for the message.
        dimensions: how many the tensor has; None for any number from 1 on.

    Raises:
        WeightsError: if it is missing, has another number of dimensions, or a size of 0.
    """
    if name not in tensors:
        known = ", ".join(sorted(tensors)[:5])
        raise WeightsError(f"{name}: missing; expected it in {what}; the file has {known}, …")
    shape = tensor_shape(tensors, name)
    if dimensions is not None and len(shape) != dimensions:
        raise WeightsError(f"{name}: got shape {shape}; expected {dimensions} dimensions")
    if 0 in shape or not shape:
        raise WeightsError(f"{name}: got shape {shape}; expected sizes of at least 1")
    return shape


def square_root(number: int, name: str) -> int:
    """Returns the side of a square of `number` tokens or pixels.

    Raises:
        WeightsError: if it is no square.
    """
    side = math.isqrt(max(number, 0))
    if side * side != number:
        raise WeightsError(f"{name}: got {number} tokens or pixels; expected a square number")
    return side
