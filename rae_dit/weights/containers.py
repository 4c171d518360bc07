"""Bounds of a tree of containers that a file describes, so that walking through it ends."""

from typing import Any

from rae_dit.weights.errors import WeightsError

MAX_DEPTH = 100  # of containers in containers
MAX_SIZE = 1_000_000  # containers, shared ones counted each time


def check_containers(content: Any) -> None:
    """Refuses containers that hold themselves, are nested too deep, or take long to walk through.

    Shared containers count each time: a hundred lists that each hold the next one twice are small
    in memory, and no one gets to their end.

    Raises:
        WeightsError: they are.
    """
    measured: dict[int, tuple[int, int]] = {}  # depth and size of finished containers, by id
    path: set[int] = set()
    todo: list[tuple[Any, bool]] = [(content, False)]
    while todo:
        value, finished = todo.pop()
        if not isinstance(value, dict | list | tuple):
            continue
        inner = list(value.values()) if isinstance(value, dict) else value
        if finished:
            path.discard(id(value))
            found = [measured[id(one)] for one in inner if id(one) in measured]
            depth, size = 1, 1 + sum(size for _, size in found)
            depth += max((depth for depth, _ in found), default=0)
            measured[id(value)] = depth, size
            if depth > MAX_DEPTH or size > MAX_SIZE:
                raise WeightsError(f"It holds {size:,} containers, {depth} deep.")
        elif id(value) in path:
            raise WeightsError("It holds a container that holds itself.")
        elif id(value) not in measured:
            path.add(id(value))
            todo.append((value, True))
            todo.extend((one, False) for one in inner)
