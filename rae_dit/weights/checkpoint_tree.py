"""State dicts in the tree of a checkpoint: where they are, and which are averages.

A training checkpoint is a tree of dicts and lists that ends in tensors; a flat file has one level,
in which the first words of the names may do the same. Trainers name the branches in many ways:
the tables below hold the names that are known.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rae_dit.weights.errors import WeightsError
from rae_dit.weights.torch_file import LazyTensor

# An average is named by the word "ema" (ema, model_ema, state_dict_ema, ema_net, ema_0.9999), or:
AVERAGES = ("shadow", "shadow_params", "averaged_model")
EMA_WORD = re.compile(r"(?:^|[^a-z])ema\d*(?:[^a-z0-9]|$)", re.IGNORECASE)
# Weights that the optimizer moves; the first found is taken.
ONLINE = ("model", "state_dict", "model_state_dict", "online_model", "net", "network", "params")
# Parts of names that wrappers of modules add.
WRAPPERS = (
    *("_orig_mod", "module", "ddp"),
    *("_checkpoint_wrapped_module", "_fsdp_wrapped_module"),
)
# What classes that average keep beside their weights.
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step", "optimization_step")
NOT_AVERAGED = ("online_model", "collected_params", "optimizer", "backup")
MAX_DEPTH = 8


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


def parts(
    node: Any, place: str = "", *, average: bool, siblings: tuple[str, ...] = (), depth: int = 0
) -> Iterator[Part]:
    """Yields every state dict below a node of the tree."""
    if depth > MAX_DEPTH or not holds_tensors(node):
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
            role = is_average(key, inside=average)
            if role is None or isinstance(child, Leaf):
                continue
            below = parts(child, join(place, key), average=role, siblings=keys, depth=depth + 1)
            decays = decays_beside(child, node)
            for number, part in enumerate(below):
                beside = decays[number] if number < len(decays) else None
                known = part.decay or decay_in(key) or beside
                yield dataclasses.replace(part, decay=known if part.average else None)
        return
    yield from groups(children, place, average=average, siblings=siblings)


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
    heads: dict[str, dict[str, Leaf]] = {}
    for name, tensor in plain.items():
        head, _, rest = name.partition(".")
        known = bool(rest) and is_average(head, inside=average) is not None
        heads.setdefault(head if known else "", {})[rest if known else name] = tensor
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


def is_average(key: str, *, inside: bool) -> bool | None:
    """Tells by the name of a branch whether an EMA is below; None for what is no weights.

    Args:
        key: the name.
        inside: whether the branch is itself inside an EMA's, where all that is not named otherwise
            belongs to the EMA.
    """
    if key in NOT_AVERAGED:
        return False if key in ONLINE else None
    if EMA_WORD.search(key) or key in AVERAGES:
        return True
    if key in ONLINE or key in WRAPPERS:
        return inside
    return True if inside and decay_in(key) is not None else None


def decay_in(key: str) -> float | None:
    """Reads a decay off a name such as "0.9999" or "ema_0.9999"."""
    match = re.search(r"(?<![\d.])0?\.\d+(?![\d.])", key)
    return float(match[0]) if match else None


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
