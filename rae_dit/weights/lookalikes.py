"""State dicts beside the one that is taken which could be its average, whatever their names.

`teacher`, `target_model` and `best_model` beside `model` have the same tensors; a file does not
tell whether they are averages.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rae_dit.weights.averages import match_in_order
from rae_dit.weights.branch_names import WRAPPERS, is_no_weights, names_ema
from rae_dit.weights.lazy_tensor import LazyTensor
from rae_dit.weights.safe_pickle import Placeholder

MAX_DEPTH = 8
LEAST_SHARE = 0.5  # of the tensors: averages may leave out buffers and frozen parameters


def lookalikes(content: Any, taken: Mapping[str, LazyTensor]) -> list[str]:
    """Finds the places of other tensors with the names and shapes of those that are taken.

    Args:
        content: of the file.
        taken: the state dict that is taken.
    """
    own = {id(tensor) for tensor in taken.values()}
    counts: dict[str, int] = {}
    found: list[str] = []
    for place, value in branches(content):
        if isinstance(value, LazyTensor):
            for prefix, name in splits(place):
                other = taken.get(name)
                if other is not None and other.shape == value.shape and id(value) not in own:
                    counts[prefix] = counts.get(prefix, 0) + 1
        elif own.isdisjoint(map(id, value)) and len(value) >= LEAST_SHARE * len(taken):
            found += [".".join(place)] if match_in_order(value, taken) else []
    return found + [place for place, n in counts.items() if n >= LEAST_SHARE * len(taken)]


def splits(place: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (place of a state dict, name in it) in every way, without the names of wrappers."""
    words = [word for word in ".".join(place).split(".") if word not in WRAPPERS]
    for end in range(len(words)):
        yield ".".join(words[:end]) or "*", ".".join(words[end:])


def branches(
    node: Any, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], LazyTensor | list[LazyTensor]]]:
    """Yields every tensor, and every list of tensors, that is not an optimizer's."""
    if isinstance(node, LazyTensor):
        yield place, node
    elif len(place) > MAX_DEPTH:
        return
    elif isinstance(node, list | tuple):
        if node and all(isinstance(value, LazyTensor) for value in node):
            yield place, list(node)
        for number, value in enumerate(node):
            if not isinstance(value, LazyTensor):
                yield from branches(value, (*place, str(number)))
    elif isinstance(node, dict):
        for key, value in node.items():
            if not is_no_weights(str(key).partition(".")[0]):
                yield from branches(value, (*place, str(key)))


def unread_average(node: Any, place: tuple[str, ...] = ()) -> str | None:
    """Finds a branch that is called an EMA and is not read as one: its place.

    Such are the averages that an optimizer or a callback keeps, and a pickled object.
    """
    if len(place) > MAX_DEPTH or not isinstance(node, dict | list | tuple):
        return None
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        here = (*place, str(key))
        pickled = not place and type(value) is not LazyTensor and not is_plain(value)
        if names_ema(str(key)) and (pickled or tensors_below(value)):
            return ".".join(here)
        if below := unread_average(value, here):
            return below
    return None


def is_plain(value: Any) -> bool:
    """Tells whether a value is a container, a number or a string."""
    return isinstance(value, dict | list | tuple | bool | int | float | str | bytes | None)


def tensors_below(value: Any, depth: int = 0) -> bool:
    """Tells whether there are tensors in a container or in the state of a pickled object."""
    if type(value) is Placeholder:
        value = value.state
    if depth > MAX_DEPTH or not isinstance(value, dict | list | tuple):
        return False
    inner = list(value.values()) if isinstance(value, dict) else value
    return any(type(one) is LazyTensor or tensors_below(one, depth + 1) for one in inner)
