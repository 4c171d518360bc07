"""Thread-safe cache of the most recently used values."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """The most recently used values by key, thread-safe; pickles as an empty cache.

    Args:
        size: total weight of the values kept. The last one is kept whatever it weighs.
        weigh: weight of a value, a function that can be pickled; by default each weighs 1.
    """

    def __init__(self, size: int, weigh: Callable[[Value], int] | None = None) -> None:
        self._size, self._weigh = size, weigh
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._being_made: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Returns the value of `key`, calling `make` if needed; other threads wait for it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            being_made = self._being_made.setdefault(key, threading.Lock())
        with being_made:  # not the lock of all: reading takes long
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = make()
                with self._lock:
                    self._values[key] = value
                    while len(self._values) > 1 and self._total() > self._size:
                        self._values.popitem(last=False)
            finally:
                with self._lock:
                    self._being_made.pop(key, None)
        return value

    def _total(self) -> int:
        return sum(1 if self._weigh is None else self._weigh(v) for v in self._values.values())

    def __reduce__(self) -> tuple[type["LRUCache[Value]"], tuple[Any, ...]]:
        return LRUCache, (self._size, self._weigh)
