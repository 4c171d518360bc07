"""Pickles read without running them: containers, numbers, strings; a placeholder for the rest.

A pickle is a program for a stack machine. `pickletools.genops` splits it into instructions, and
this machine executes those that `pickle` writes (protocols 2 to 5). Where the original would import
a name, call it or set an object's state, it makes a `Placeholder`, which remembers the name and
what it was given. Only the builders handed in are called: the reader's own, for tensors.

Bounds: arguments are read from what is left of the file, never allocated by their stated size;
containers and instructions are counted; keys are of plain types, because hashing a tuple recurses.

Source: CPython 3.11 `pickletools.py`, which documents each instruction.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from rae_dit.weights.errors import WeightsError

# A training checkpoint needs about 45 instructions and 15 objects a tensor.
MAX_INSTRUCTIONS = 10_000_000
MAX_OBJECTS = 3_000_000  # containers, placeholders and memo entries, of at most about 100 bytes
MAX_MARKS = 10_000
MAX_KEY = 1 << 60  # integers above have chosen hashes: a dict of them can be made slow

Builder = Callable[..., Any]

CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
LITERALS = NUMBERS | TEXTS | BYTES
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
PLAIN_KEYS = (str, int, float, bool, bytes, type(None))


class Readable(Protocol):
    """A file of bytes, whose `read(n)` does not allocate more than is left of it."""

    def read(self, count: int, /) -> bytes:
        """Reads at most `count` bytes."""

    def readline(self) -> bytes:
        """Reads to the end of a line."""

    def tell(self) -> int:
        """Returns the position."""


class Placeholder:
    """Stand-in for an object that a pickle names; inert.

    Attributes:
        name: dotted name of the class or function.
        arguments: what it was called with; None if it is the class or function itself.
        state: what its state was set to; None if it was not set.
        items: entries that were set in it or appended to it; None if there are none.
    """

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None):
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.items: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class Machine:
    """Executes one pickle.

    Args:
        builders: what may be called, by dotted name.
        load_storage: called with each persistent id, which torch uses for storages.
    """

    def __init__(self, builders: Mapping[str, Builder], load_storage: Callable[[Any], Any]):
        self.builders = builders
        self.load_storage = load_storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.objects = 0

    def run(self, file: Readable) -> Any:
        """Executes the pickle at the position of `file`, up to its end.

        Raises:
            WeightsError: an instruction that is not allowed, too many of them, or too deep a
                result.
            Exception: others, on a damaged pickle; see `errors.parsing`.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
            if count >= MAX_INSTRUCTIONS or self.objects > MAX_OBJECTS:
                raise WeightsError(f"Its pickle makes more than {MAX_OBJECTS:,} objects.")
            name = opcode.name
            if name in PUTS:  # first the most frequent
                self.put(len(self.memo) if argument is None else argument)
            elif name in LITERALS:
                self.stack.append(argument)
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[cast(int, argument)])
            elif name == "MARK":
                self.mark()
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in TUPLES:
                self.push(tuple(self.pop_last(TUPLES[name])))
            elif name == "STOP":
                return self.stack.pop()
            elif name not in ("PROTO", "FRAME"):
                self.execute(name, argument)
        raise WeightsError("Its pickle has no end.")

    def execute(self, name: str, argument: Any) -> None:
        """Executes an instruction on containers or placeholders."""
        match name:
            case "TUPLE":
                self.push(tuple(self.pop_mark()))
            case "EMPTY_TUPLE":
                self.push(())
            case "EMPTY_LIST" | "EMPTY_SET":
                self.push([])
            case "LIST" | "FROZENSET":
                self.push(self.pop_mark())
            case "EMPTY_DICT":
                self.push({})
            case "DICT":
                pairs = self.pop_mark()
                self.push({})
                self.set_items(pairs)
            case "APPEND":
                self.extend(self.pop_last(1))
            case "APPENDS" | "ADDITEMS":
                self.extend(self.pop_mark())
            case "SETITEM":
                self.set_items(self.pop_last(2))
            case "SETITEMS":
                self.set_items(self.pop_mark())
            case "POP":
                self.pop_last(1)
            case "POP_MARK":
                self.pop_mark()
            case "BINPERSID":
                self.push(self.load_storage(self.stack.pop()))
            case "GLOBAL":
                self.push(Placeholder(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                module, attribute = self.pop_last(2)
                if type(module) is not str or type(attribute) is not str:
                    raise WeightsError("Its pickle names something by other than a string.")
                self.push(Placeholder(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                self.push(self.call(*self.pop_last(2)))
            case "NEWOBJ_EX":
                called, arguments, _ = self.pop_last(3)
                self.push(self.call(called, arguments))
            case "BUILD":
                self.set_state(*self.pop_last(1))
            case _:
                raise WeightsError(f"Its pickle has an instruction {name}, which torch never uses.")

    def mark(self) -> None:
        """Marks the start of an object's contents."""
        if len(self.marks) >= MAX_MARKS:
            raise WeightsError(f"Its pickle has more than {MAX_MARKS:,} objects inside each other.")
        self.marks.append(len(self.stack))

    def push(self, value: Any) -> None:
        """Puts an object on the stack, and counts it."""
        self.objects += 1
        self.stack.append(value)

    def put(self, place: int) -> None:
        """Remembers what is on top of the stack."""
        self.objects += 1
        self.memo[place] = self.stack[-1]

    def pop_last(self, count: int) -> list[Any]:
        """Takes the last `count` values from the stack, down to the last mark at most."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise WeightsError("Its pickle takes from an empty stack.")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop_mark(self) -> list[Any]:
        """Takes all values above the last mark from the stack."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def call(self, called: Any, arguments: Any) -> Any:
        """Calls a builder; anything else becomes a placeholder."""
        if type(called) is not Placeholder or type(arguments) is not tuple:
            raise WeightsError("Its pickle calls something that is no name.")
        builder = self.builders.get(called.name) if called.arguments is None else None
        return builder(*arguments) if builder else Placeholder(called.name, arguments)

    def set_state(self, state: Any) -> None:
        """Sets the state of a placeholder; that of a dict, such as `_metadata`, is dropped."""
        target = self.stack[-1]
        if type(target) is Placeholder and target.arguments is not None:
            target.state = state
        elif type(target) is not dict:
            raise WeightsError(f"Its pickle sets the state of a {type(target).__name__}.")

    def extend(self, values: list[Any]) -> None:
        """Appends to the list or placeholder on top of the stack."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(values)
        elif type(target) is Placeholder:
            target.items = target.items or {}
            target.items |= enumerate(values, len(target.items))
        else:
            raise WeightsError(f"Its pickle appends to a {type(target).__name__}.")

    def set_items(self, pairs: list[Any]) -> None:
        """Sets entries of the dict or placeholder on top of the stack."""
        target = self.stack[-1]
        if type(target) is Placeholder and target.items is None:
            target.items = {}
        items = target.items if type(target) is Placeholder else target
        if type(items) is not dict or len(pairs) % 2:
            raise WeightsError(f"Its pickle sets items of a {type(target).__name__}.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            items[plain_key(key)] = value


def plain_key(key: Any) -> Any:
    """Returns a key of a plain type; others, which no one asks for, become placeholders.

    Placeholders are hashed by identity: hashing a tuple recurses in C without a bound.

    Raises:
        WeightsError: an integer whose hash may have been chosen.
    """
    if type(key) is int and abs(key) >= MAX_KEY:
        raise WeightsError(f"Its pickle has a key above {MAX_KEY}.")
    if type(key) in PLAIN_KEYS or type(key) is Placeholder:
        return key
    return Placeholder(f"a {type(key).__name__}", ())
