"""Names for the tensors of an EMA that was saved without them, from the model beside it.

Trainers save averages as a list in the order of the model's parameters (diffusers' EMAModel,
torch_ema: `shadow_params`), or under names without their dots (LitEma). Both are settled by the
online weights in the same file, or not at all: where a second assignment is possible, there is no
answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Tensor = TypeVar("Tensor")


def match_in_order(average: Sequence[Any], model: Mapping[str, Any]) -> dict[str, Any] | None:
    """Names a list of tensors by the order and the shapes of the model's.

    The model's tensors that the list leaves out (buffers, frozen parameters) are found by shape.

    Args:
        average: the list.
        model: the model's tensors, in the order of its state dict.

    Returns:
        The list's tensors by name; None if there is no assignment, or more than one.
    """
    shapes = [tuple(tensor.shape) for tensor in average]
    names = list(model)
    first = assign(shapes, [(name, tuple(model[name].shape)) for name in names])
    last = assign(shapes[::-1], [(name, tuple(model[name].shape)) for name in names[::-1]])
    # The earliest and the latest assignment enclose all others.
    if first is None or last is None or first != last[::-1]:
        return None
    return dict(zip(first, average, strict=True))


def assign(
    shapes: Sequence[tuple[int, ...]], named: Sequence[tuple[str, tuple[int, ...]]]
) -> list[str] | None:
    """Gives each shape the first name after the one before it that has this shape."""
    found: list[str] = []
    rest = iter(named)
    for shape in shapes:
        name = next((name for name, other in rest if other == shape), None)
        if name is None:
            return None
        found.append(name)
    return found


def match_undotted(
    average: Mapping[str, Tensor], model: Mapping[str, Any]
) -> dict[str, Tensor] | None:
    """Finds the names of tensors that are named without dots.

    Returns:
        The tensors by the model's names; None if a name is not the model's, or could be two.
    """
    dotted: dict[str, str] = {}
    for name in model:
        short = name.replace(".", "")
        if short in dotted:
            return None
        dotted[short] = name
    if not average.keys() <= dotted.keys():
        return None
    return {dotted[name]: tensor for name, tensor in average.items()}
