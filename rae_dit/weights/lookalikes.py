"""State dicts beside the one that is taken which could be its average, whatever their names.

`teacher`, `target_model` and `best_model` beside `model` have the same tensors; a file does not
tell whether they are averages.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rae_dit.weights.averages import LEAST_SHARE, match_in_order
from rae_dit.weights.branch_names import WRAPPERS, is_average, is_no_weights, words
from rae_dit.weights.lazy_tensor import LazyTensor, Storage
from rae_dit.weights.safe_pickle import Placeholder

MAX_DEPTH = 8
SUMS = frozenset(["avg", "average"])  # "square_avg" is an optimizer's
ARRAYS = ("multiarray._reconstruct", "numeric._frombuffer")  # numpy's, of protocol 2 and 5
MAX_BYTES = 64  # of a digest or a date: half of the least that is taken for weights


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


def unread_average(
    content: Any, taken: Iterable[LazyTensor], others: Iterable[LazyTensor] = ()
) -> str | None:
    """Finds a branch that is called an average, holds weights, and is not read: its place.

    Such are the averages that an optimizer or a callback keeps, arrays of numpy's, all parameters
    in one vector, and pickled objects.

    Args:
        content: of the file.
        taken: tensors that are taken.
        others: tensors that are read, and are of other networks.
    """
    taken = list(taken)
    least = LEAST_SHARE * sum(math.prod(tensor.shape) for tensor in taken)
    empty = {
        id(tensor) for tensor in (*taken, *others)
    }  # and all that was found to hold no weights
    seen: set[int] = set()
    todo: deque[tuple[tuple[str, ...], Any, bool]] = deque([((), content, False)])
    while todo:
        place, node, optimizer = todo.popleft()
        inner = entries(node)
        state_dict = all(isinstance(value, LazyTensor) for _, value in inner)
        for key, value in inner:
            here = (*place, key)
            small = state_dict and math.prod(value.shape) < least  # "embed_avg" of a VAE
            named = names_average(key, optimizer=optimizer) and not small
            if named and holds_weights(value, empty):
                return ".".join(here)
            if len(here) <= MAX_DEPTH and id(value) not in seen:
                seen.add(id(value))
                todo.append((here, value, optimizer or is_no_weights(key)))
    return None


def names_average(key: str, *, optimizer: bool) -> bool:
    """Tells whether a name is an average's; an optimizer averages squares and gradients, too."""
    named = is_average(key, inside=False)
    return bool(named) and (not optimizer or SUMS.isdisjoint(words(key)))


def entries(node: Any) -> list[tuple[str, Any]]:
    """Lists what is in a container or in a pickled object, by name or number."""
    if type(node) is Placeholder:
        state = entries(node.state) if isinstance(node.state, dict) else [("state", node.state)]
        return state + entries(node.arguments) + entries(node.items)
    if isinstance(node, dict):
        return [(str(key), value) for key, value in node.items()]
    return (
        [(str(n), value) for n, value in enumerate(node)] if isinstance(node, list | tuple) else []
    )


def holds_weights(value: Any, empty: set[int]) -> bool:
    """Tells whether there is more than a single number in a value, however deep.

    Args:
        value: of the file.
        empty: ids of values without weights; more are added.
    """
    todo = [value]
    while todo:
        one = todo.pop()
        if id(one) in empty:
            continue
        if numbers_in(one) > 1:
            return True
        empty.add(id(one))
        todo += [inner for _, inner in entries(one)]
    return False


def numbers_in(value: Any) -> int:
    """Counts the numbers of a tensor, of a pickled array, and of bytes too long for a name."""
    match value:
        case LazyTensor():
            return math.prod(value.shape) if value.readable else 2
        case Storage():
            return value.length
        case bytes() | bytearray():
            return len(value) // MAX_BYTES
        case Placeholder(name="_codecs.encode", arguments=(str() as text, *_)):  # older bytes
            return len(text) // MAX_BYTES
        case Placeholder(state=(_, tuple() as shape, *_)) if value.name.endswith(ARRAYS):
            return product(shape)
        case Placeholder(arguments=(_, _, tuple() as shape, *_)) if value.name.endswith(ARRAYS):
            return product(shape)
    return 0


def product(shape: tuple[Any, ...]) -> int:
    """Multiplies sizes; 0 if they are none."""
    return math.prod(shape) if all(type(size) is int for size in shape) else 0
