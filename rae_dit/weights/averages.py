"""Names for the tensors of an EMA that was saved without them, from the model beside it.

Trainers save averages as a list in the order of the model's parameters (diffusers' EMAModel,
torch_ema: `shadow_params`), or under names without their dots (LitEma). Both are settled by the
online weights in the same file, or not at all: where a second assignment is possible, there is no
answer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Tensor = TypeVar("Tensor")
LEAST_SHARE = 0.5  # of the tensors: averages may leave out buffers and frozen parameters


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


def is_foreign(average: Mapping[str, Any] | Sequence[Any], model: Mapping[str, Any]) -> bool:
    """Tells whether an average is of another network than a model, such as of its discriminator.

    It is if less than half of the smaller one's names (with or without a prefix, or dots) are the
    other's, and less than half of its shapes. A part of the model is not foreign.

    Args:
        average: tensors by name, or a list.
        model: the model's tensors.
    """
    tensors = list(average.values()) if isinstance(average, Mapping) else average
    least = LEAST_SHARE * min(len(tensors), len(model))
    # Where both have names of modules, shapes alone tell only of the whole.
    dotted = isinstance(average, Mapping) and any("." in name for name in average)
    if isinstance(average, Mapping):
        ours, theirs = suffixes(model), suffixes(average)
        named = max(len(ours & average.keys()), len(theirs & model.keys()))
        named = max(named, len({name.replace(".", "") for name in model} & average.keys()))
        if named and named >= least:
            return False
    shapes = Counter(tuple(tensor.shape) for tensor in tensors)
    common = (shapes & Counter(tuple(tensor.shape) for tensor in model.values())).total()
    return common < (LEAST_SHARE * len(model) if dotted else least)


def suffixes(names: Mapping[str, Any]) -> set[str]:
    """Returns all names without their first words, one or more of which may be a prefix."""
    split = [name.split(".") for name in names]
    return {".".join(words[start:]) for words in split for start in range(len(words))}
