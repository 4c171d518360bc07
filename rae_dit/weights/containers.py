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
    sizes: dict[int, int] = {}  # of finished containers, by id
    path: set[int] = set()
    todo: list[tuple[Any, bool]] = [(content, False)]
    while todo:
        value, finished = todo.pop()
        if not isinstance(value, dict | list | tuple):
            continue
        inner = list(value.values()) if isinstance(value, dict) else value
        if finished:
            path.discard(id(value))
            sizes[id(value)] = size = 1 + sum(sizes.get(id(one), 0) for one in inner)
            if size > MAX_SIZE:
                raise WeightsError(f"It holds more than {MAX_SIZE:,} containers.")
        elif id(value) in path:
            raise WeightsError("It holds a container that holds itself.")
        elif id(value) not in sizes:
            path.add(id(value))
            if len(path) > MAX_DEPTH:
                raise WeightsError(f"It holds containers more than {MAX_DEPTH} deep.")
            todo.append((value, True))
            todo.extend((one, False) for one in inner)
