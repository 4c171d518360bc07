"""State dicts in the tree of a checkpoint: where they are, and which are averages.

A training checkpoint is a tree of dicts and lists that ends in tensors; a flat file has one level,
in which the first words of the names may do the same. Trainers name the branches in many ways:
`branch_names` holds those that are known.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rae_dit.weights.branch_names import (
    COUNTERS,
    ONLINE,
    WRAPPERS,
    decay_in,
    is_average,
    names_ema,
)
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.torch_file import LazyTensor

MAX_DEPTH = 8
CALLBACKS = "callbacks"
CURRENT = "current_model_state"


Leaf = LazyTensor


@dataclasses.dataclass(frozen=True)
class Part:
    """One state dict of a file.

    Attributes:
        place: where it is: "", "ema", "state_dict.ema_net.*".
        tensors: by the model's names, or a list in the order of the model's parameters.
        average: whether it is an EMA.
        siblings: names among which its own was found.
        decay: of the EMA, where its name or the list beside it tells.
    """

    place: str
    tensors: dict[str, Leaf] | list[Leaf]
    average: bool
    siblings: tuple[str, ...] = ()
    decay: float | None = None

    @property
    def named(self) -> dict[str, Leaf]:
        """The tensors by name; {} for a list."""
        return self.tensors if isinstance(self.tensors, dict) else {}

    @property
    def leaves(self) -> list[Leaf]:
        """The tensors without their names."""
        return list(self.tensors.values()) if isinstance(self.tensors, dict) else self.tensors


def parts(
    node: Any, place: str = "", *, average: bool, siblings: tuple[str, ...] = (), depth: int = 0
) -> Iterator[Part]:
    """Yields every state dict below a node of the tree."""
    if depth > MAX_DEPTH or isinstance(node, Leaf) or not holds_tensors(node):
        return
    if isinstance(node, list | tuple):
        if all(isinstance(value, Leaf) for value in node):
            yield Part(place, list(node), average, siblings)
            return
        for number, child in enumerate(node):
            yield from parts(
                child, f"{place}[{number}]", average=average, siblings=siblings, depth=depth + 1
            )
        return
    children = {str(key): value for key, value in node.items() if holds_tensors(value)}
    if any(isinstance(value, dict | list | tuple) for value in children.values()):
        keys = tuple(sorted(map(str, node)))
        for key, child in children.items():
            role = role_of(key, node, inside=average)
            if isinstance(child, Leaf) or (role is None and key != CALLBACKS):
                continue
            below: Iterable[Part] = parts(
                child, join(place, key), average=bool(role), siblings=keys, depth=depth + 1
            )
            if role is None:  # Lightning's callbacks may keep an EMA
                below = (part for part in below if part.average)
            decays = decays_beside(child, node)
            for number, part in enumerate(below):
                beside = decays[number] if number < len(decays) else None
                known = part.decay or decay_in(key) or beside
                yield dataclasses.replace(part, decay=known if part.average else None)
        return
    yield from groups(children, place, average=average, siblings=siblings)


def role_of(key: str, node: Mapping[Any, Any], *, inside: bool) -> bool | None:
    """Tells whether a branch holds an average, see `is_average`, by its own name and those beside.

    Lightning's WeightAveraging puts the average under `state_dict`, and moves the online weights.
    """
    if CURRENT in node and "averaging_state" in node and key in (CURRENT, "state_dict"):
        return key != CURRENT
    return is_average(key, inside=inside)


def groups(
    tensors: Mapping[str, Leaf], place: str, *, average: bool, siblings: tuple[str, ...]
) -> Iterator[Part]:
    """Yields the state dicts that share one dict and differ in the first word of their names.

    Lightning and ema_pytorch write such: "net.*" beside "ema_net.*", and "loss.*" of another model.
    """
    plain = unwrapped(tensors, place)
    average = average or "n_averaged" in plain
    for counter in COUNTERS:
        plain.pop(counter, None)
    heads = by_head(plain, average=average)
    other = heads.pop("", {})
    all_heads = tuple(sorted({name.partition(".")[0] for name in plain}))
    for head, inner in heads.items():
        role = bool(is_average(head, inside=average))
        inner_place, beside = f"{join(place, head)}.*", all_heads
        if len(all_heads) == 1 and role == average:  # a prefix of everything tells nothing
            inner_place, beside = place, siblings
        yield from groups(inner, inner_place, average=role, siblings=beside)
    only_averages = bool(heads) and all(is_average(head, inside=average) for head in heads)
    if other and (not heads or only_averages):  # else of another model: a loss, a discriminator
        yield Part(place or ("*" if heads else ""), other, average, siblings or all_heads)


def by_head(tensors: Mapping[str, Leaf], *, average: bool) -> dict[str, dict[str, Leaf]]:
    """Groups tensors by the first word of their names, where that is known; under "" the rest.

    A module may be called "avg_pool" or "swa": these words are known as an average's where they
    are before all names, or before names that the online weights have.
    """
    every: dict[str, dict[str, Leaf]] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        every.setdefault(head if rest else "", {})[rest or head] = tensor
    heads: dict[str, dict[str, Leaf]] = {}
    for head, inner in every.items():
        known = is_average(head, inside=average) is not None
        if known and is_average(head, inside=False) and not names_ema(head):
            online = [found for other, found in every.items() if other in ONLINE]
            like = any(inner.keys() <= found.keys() for found in (*online, tensors))
            known = like or len(every) == 1
        for rest, tensor in inner.items():
            name = f"{head}.{rest}" if head else rest
            heads.setdefault(head if head and known else "", {})[rest if known else name] = tensor
    return heads


def unwrapped(tensors: Mapping[str, Leaf], place: str) -> dict[str, Leaf]:
    """Takes the names of wrappers out of all names.

    Raises:
        WeightsError: two tensors would have one name.
    """
    named: dict[str, Leaf] = {}
    for name, tensor in tensors.items():
        short = ".".join(word for word in name.split(".") if word not in WRAPPERS)
        if short in named:
            raise WeightsError(
                f"{join(place, name)}: got a second {short!r} without the names of wrappers; "
                "expected one"
            )
        named[short] = tensor
    return named


def decays_beside(listed: Any, node: Mapping[Any, Any]) -> list[float]:
    """Finds the decays of a list of averages in a list beside it, such as "ema_rates"."""
    for key, values in node.items():
        named = isinstance(values, list) and re.search(r"rate|decay", str(key))
        if named and isinstance(listed, list) and len(values) == len(listed):
            return [value for value in values if isinstance(value, float)]
    return []


def holds_tensors(node: Any, depth: int = 0) -> bool:
    """Tells whether there are tensors at or below a node."""
    if isinstance(node, Leaf):
        return True
    if depth > MAX_DEPTH or not isinstance(node, dict | list | tuple):
        return False
    below = node.values() if isinstance(node, dict) else node
    return any(holds_tensors(value, depth + 1) for value in below)


def join(place: str, key: str) -> str:
    """Joins the name of a branch to the place of its parent."""
    return f"{place}.{key}" if place else key
