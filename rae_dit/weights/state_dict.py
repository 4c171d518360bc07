"""Choice of the state dict in a file of weights: the EMA where there is one, else the only weights.

What is taken is logged, and what is not clear is refused: the error lists what was found.
"""

import logging
from pathlib import Path
from typing import Any, Literal

from rae_dit.weights.averages import is_foreign, match_in_order, match_undotted
from rae_dit.weights.branch_names import ONLINE, names_ema
from rae_dit.weights.checkpoint_tree import Leaf, Part, parts
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.lookalikes import lookalikes, unread_average

log = logging.getLogger(__name__)

Weights = Literal["ema", "online"]


def find_state_dict(content: Any, path: Path, weights: Weights = "ema") -> dict[str, Leaf]:
    """Finds the state dict in the content of a file, under the model's own names.

    Args:
        content: dicts and lists that end in tensors; whatever else they hold is passed over.
        path: of the file, for messages.
        weights: "ema" takes the EMA or, where there is none, the online weights; "online" takes
            those although there is an EMA.

    Raises:
        WeightsError: if there is none, if it is not clear which is meant, or if the EMA there is
            cannot be brought under the model's names.
    """
    if weights not in ("ema", "online"):
        raise WeightsError(f"weights: got {weights!r}; expected 'ema' or 'online'")
    found = list(parts(content, average=False)) if isinstance(content, dict) else []
    online = next((part for part in sorted(found, key=preference) if not part.average), None)
    model = {} if online is None else online.named
    every = [part for part in found if part.average]
    foreign = [part for part in every if model and is_foreign(part.tensors, model)]
    averages = [part for part in every if part not in foreign]
    if weights == "ema" and not averages:
        check_no_average_is_lost(content, online, foreign, path)
    if weights == "online" and online is None and averages:
        places = ", ".join(part.place or "all of it" for part in averages)
        raise WeightsError(
            f"weights: got 'online'; expected 'ema', all that {path} holds ({places})"
        )
    if averages and weights == "ema":
        part = slowest(averages, path)
        tensors = with_names(part, online, path)
    elif online is not None:
        part, tensors = online, online.named
    else:
        raise WeightsError(f"{path}: got {describe(content)}; expected a state dict of tensors")
    if part.place:
        log.warning("%s: %s", path, describe_choice(part, found, weights))
        for other in foreign:
            log.warning("%s: %r is an average of another network", path, other.place)
    return tensors


def describe_choice(part: Part, found: list[Part], weights: Weights) -> str:
    """Says what is taken of a file, and what is left."""
    kind = (
        ("the EMA" if names_ema(part.place) else "an average of the weights")
        if part.average
        else "the online weights"
        if weights == "online"
        else "no EMA is there"
        if not any(other.average for other in found)
        else "no EMA of it is there"
    )
    kind += "" if part.decay is None else f" of decay {part.decay}"
    places = sorted(other.place or "the rest" for other in found if other is not part)
    known = {word for other in found for word in other.place.split(".")}
    left = [*places, *(name for name in part.siblings if name.partition("[")[0] not in known)]
    return f"taking {part.place!r} ({kind})" + (f"; left out: {', '.join(left)}" if left else "")


def preference(part: Part) -> int:
    """Ranks online weights by the table above."""
    last = part.place.removesuffix(".*").rpartition(".")[2]
    return ONLINE.index(last) if last in ONLINE else len(ONLINE)


def slowest(averages: list[Part], path: Path) -> Part:
    """Returns the only average, or that of the largest decay.

    Raises:
        WeightsError: there are several, and no decays that tell them apart.
    """
    by_decay = {part.decay: part for part in averages}
    if len(averages) > 1 and (None in by_decay or len(by_decay) < len(averages)):
        places = ", ".join(part.place for part in averages)
        raise WeightsError(
            f"{path}: got {len(averages)} averages ({places}); expected one, or decays in their "
            "names; save the one that is meant in a file of its own, or take weights='online'"
        )
    return max(averages, key=lambda part: part.decay or 0.0)


def with_names(part: Part, online: Part | None, path: Path) -> dict[str, Leaf]:
    """Returns an EMA's tensors by the model's names, which some trainers leave out.

    Raises:
        WeightsError: it has no names, and those of the online weights do not settle them.
    """
    dotted = any("." in name for name in part.named)
    if part.named and (dotted or online is None or not any("." in n for n in online.named)):
        return part.named
    model = {} if online is None else online.named
    if isinstance(part.tensors, list):
        matched = match_in_order(part.tensors, model)
    else:
        matched = match_undotted(part.tensors, model)
    if matched is None:
        raise WeightsError(
            f"{path}: got {len(part.tensors)} tensors without the model's names in "
            f"{part.place!r}, which the online weights do not settle; expected names; "
            "weights='online' takes the online weights"
        )
    left = sorted(model.keys() - matched.keys())
    if left:
        log.warning("%s: not averaged, taken from the online weights: %s", path, ", ".join(left))
    return model | matched


def check_no_average_is_lost(
    content: Any, online: Part | None, foreign: list[Part], path: Path
) -> None:
    """Refuses a file whose online weights would be taken although it may hold an average of them.

    Raises:
        WeightsError: an EMA is no state dict, such as a pickled module; or there are other tensors
            of the same names and shapes.
    """
    taken = [] if online is None else list(online.named.values())
    others = [tensor for part in foreign for tensor in part.leaves]
    if place := unread_average(content, taken, others):
        raise WeightsError(
            f"{path}: got {place!r} without a state dict in it; expected the state dict of "
            "the EMA; weights='online' takes the online weights"
        )
    if online is None or not (alike := lookalikes(content, online.named)):
        return
    place = online.place or "*"
    listed = ", ".join(repr(one) for one in [place, *alike[:10]])
    raise WeightsError(
        f"{path}: got {listed} with the same names and shapes, and none that is named as an EMA; "
        f"expected one; weights='online' takes {place!r}; save another in a file of its own"
    )


def describe(content: Any) -> str:
    """Describes the content of a file that holds no state dict."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    keys = sorted(map(str, content))
    more = f" and {len(keys) - 20} more" if len(keys) > 20 else ""
    return f"the keys {', '.join(keys[:20])}{more}" if keys else "an empty dict"
