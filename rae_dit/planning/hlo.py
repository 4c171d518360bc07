"""Parser of compiled XLA programs: computations, instructions, and how often each runs.

Only what a plan needs is read: shapes, operands, the computations an instruction calls. The text
is what `jax.stages.Compiled.as_text()` gives, one instruction a line:

    %name = f32[2,3]{1,0} opcode(%operand, ...), attribute=value, ...
"""

import math
import re
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](?:\{([^}]*)\})?")
HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"\b(\w+)=(?:\{([^{}]*)\}|%([\w.\-]+))")


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: without "%".
        shape: of the result, as text; a tuple's in parentheses.
        opcode: such as "fusion".
        arguments: what stands in the parentheses after it.
        operands: the names in there.
        rest: the attributes, as text.
        is_root: whether it is its computation's result.
    """

    name: str
    shape: str
    opcode: str
    arguments: str
    operands: list[str]
    rest: str
    is_root: bool

    def called(self, attribute: str) -> list[str]:
        """Lists the computations that an attribute such as "body" names."""
        return [
            name.strip(" %")
            for key, several, one in CALLED.findall(self.rest)
            if key == attribute
            for name in (several or one).split(",")
        ]


class Program(NamedTuple):
    """A compiled module: its computations by name, and the name of the entry."""

    computations: dict[str, list[Instruction]]
    entry: str

    def by_name(self) -> dict[str, Instruction]:
        """Maps names to instructions of all computations."""
        return {line.name: line for lines in self.computations.values() for line in lines}


def parse(text: str) -> Program:
    """Parses a module's text.

    Raises:
        ValueError: there is no entry computation in it.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", []
    for line in text.splitlines():
        if not line.startswith(" "):
            header = HEADER.match(line)
            if header:
                current = computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
        elif " = " in line:
            current.append(parse_instruction(line))
    if not entry:
        raise ValueError("got text without ENTRY; expected that of a compiled XLA module")
    return Program(name_slices(computations), entry)


def name_slices(computations: dict[str, list[Instruction]]) -> dict[str, list[Instruction]]:
    """Rewrites asynchronous slices as `as_text()` has them: `slice-start`, `slice-done`.

    What XLA writes to files while it compiles has `async-start(...), calls=%computation` instead,
    whose computation holds the slice, and `async-done` of it.
    """
    started: dict[str, str] = {}

    def name(line: Instruction) -> Instruction:
        if line.opcode == "async-start":
            roots = [inner for callee in line.called("calls") for inner in computations[callee]]
            kind = next((inner.opcode for inner in roots if inner.is_root), "")
        elif line.opcode in ("async-update", "async-done"):
            kind = started.get(line.operands[0], "")
        else:
            return line
        if kind not in ("slice", "dynamic-slice"):
            return line
        started[line.name] = kind
        return line._replace(opcode=line.opcode.replace("async", kind))

    return {key: [name(line) for line in lines] for key, lines in computations.items()}


def parse_instruction(line: str) -> Instruction:
    """Parses one line."""
    left, right = line.strip().split(" = ", 1)
    end = closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    shape, right = right[:end], right[end:].lstrip()
    opening = right.index("(")
    close = closing(right, opening)
    arguments = right[opening + 1 : close]
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        shape=shape,
        opcode=right[:opening],
        arguments=arguments,
        operands=re.findall(r"%([\w.\-]+)", arguments),
        rest=right[close + 1 :],
        is_root=left.startswith("ROOT "),
    )


def closing(text: str, opening: int) -> int:
    """Finds the parenthesis that closes the one at `opening`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"Unbalanced parentheses in {text[:80]!r}.")


def shape_bytes(shape: str, *, main_memory: bool = False) -> int:
    """Counts bytes of an array's shape or of all arrays of a tuple's.

    Args:
        shape: as text, with or without layout.
        main_memory: leave out arrays that lie elsewhere: in a TPU's on-chip memory, which the
            layout marks with S(1), or on the host.
    """
    count = 0
    for kind, dimensions, layout in ARRAY.findall(shape):
        if main_memory and re.search(r"S\([1-9]\)", layout or ""):
            continue
        size = math.prod(int(number) for number in dimensions.split(",") if number)
        count += size * element_bits(kind) // 8
    return count


def element_bits(kind: str) -> int:
    """Returns the bits of "bf16", "s32", "f8e4m3fn", ..."""
    if kind in BITS:
        return BITS[kind]
    match = re.match(r"[a-z]+(\d+)", kind)
    return int(match[1]) if match else 0


def executions(program: Program) -> dict[str, int]:
    """Counts the runs of each control-flow computation: entry, loop bodies, their callees.

    Computations inside fusions and reductions are parts of their instruction and not listed. Of a
    conditional every branch counts, since any may run.
    """
    counts: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        counts[name] = counts.get(name, 0) + times
        for line in program.computations[name]:
            match line.opcode:
                case "while":
                    for body in line.called("body"):
                        visit(body, times * trip_count(program, line))
                case "call" | "async-start":
                    for callee in line.called("to_apply") + line.called("calls"):
                        visit(callee, times)
                case "conditional":
                    for branch in line.called("branch_computations"):
                        visit(branch, times)

    visit(program.entry, 1)
    return counts


def trip_count(program: Program, loop: Instruction) -> int:
    """Counts the runs of a loop's body: XLA's trip count, else the bound of its counter.

    The latter supposes that the counter starts at 0 and grows by 1, as in every `lax.scan`; 1 when
    there is no such comparison.
    """
    known = re.search(r"known_trip_count\W+n\W+(\d+)", loop.rest)
    if known:
        return int(known[1])
    for condition in loop.called("condition"):
        lines = {line.name: line for line in program.computations[condition]}
        for line in lines.values():
            operands = [lines[name] for name in line.operands if name in lines]
            bounds = [other.arguments for other in operands if other.opcode == "constant"]
            if line.is_root and bounds and bounds[0].isdigit():
                return int(bounds[0])
    return 1
