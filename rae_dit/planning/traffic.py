"""Traffic of a compiled step: bytes through each device's memory and between devices.

**Memory.** A compiled program is a list of kernels: fusions, products, copies. A kernel reads its
operands once and writes its result once; what is fused away inside never reaches the memory. So

    bytes = sum over kernels of (operands + result) x how often it runs            (1)

with two exceptions that a loop over stacked layers is made of: an operand of which only a slice is
used counts with that slice, and a result that is written into a part of an operand with that part.
What a TPU keeps on the chip does not count.

**Network.** With n devices in a group and an array of b bytes (the larger of operand and result),
the best algorithms have every device send

    all-gather, reduce-scatter, all-to-all    b (n - 1) / n
    all-reduce                                2 b (n - 1) / n                       (2)
    collective-permute                        b
"""

import math
import re
from typing import NamedTuple

from rae_dit.planning.hlo import Instruction, Program, executions, shape_bytes

COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter"),
    *("all-to-all", "collective-permute", "ragged-all-to-all"),
)
NO_KERNEL = frozenset(
    [
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
        *("while", "call", "conditional", "opt-barrier", "partition-id", "replica-id"),
    ]
)
FETCHES = ("copy-done", "slice-done", "dynamic-slice-done")  # into or out of a TPU's chip
SLICES = ("dynamic-slice", "slice", "gather")
MARKS = re.compile(r'_target="(AllocateBuffer|Async|Assume|ConcatBitcast|Sharding)')  # no kernels
PRODUCTS = re.compile(r"cublas|cudnn|gemm|matmul", re.IGNORECASE)


class Traffic(NamedTuple):
    """Traffic of one device in one step.

    Attributes:
        product_bytes: main memory, kernels that hold a matrix product or convolution.
        other_bytes: main memory, all other kernels.
        collectives: bytes sent, by kind: (2).
    """

    product_bytes: int
    other_bytes: int
    collectives: dict[str, int]


def count_traffic(program: Program, num_devices: int) -> Traffic:
    """Adds up (1) and (2); `num_devices` is the size of a group where the text names none."""
    lines = program.by_name()
    memory = {True: 0, False: 0}
    for name, times in executions(program).items():
        for line in program.computations[name]:
            if is_kernel(line.opcode):
                memory[has_product(program, line)] += times * kernel_bytes(program, lines, line)
    return Traffic(memory[True], memory[False], count_collectives(program, num_devices))


def is_kernel(opcode: str) -> bool:
    """Tells whether an instruction moves memory; of an asynchronous pair only the end does."""
    if opcode in FETCHES:
        return True
    halves = opcode.endswith(("-start", "-done"))
    return not halves and opcode not in NO_KERNEL and not is_collective(opcode)


def is_collective(opcode: str) -> bool:
    """Tells whether an opcode sends: "all-reduce", "all-gather-start", ..., not "-done"."""
    return opcode.removesuffix("-start") in COLLECTIVES


def has_product(program: Program, line: Instruction) -> bool:
    """Tells whether a kernel multiplies matrices."""
    if line.opcode in ("dot", "convolution"):
        return True
    if line.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', line.rest)
        return bool(target and PRODUCTS.search(target[1]))
    return any(
        has_product(program, inner)
        for callee in line.called("calls")
        for inner in program.computations.get(callee, [])
    )


def kernel_bytes(program: Program, lines: dict[str, Instruction], line: Instruction) -> int:
    """Counts the main memory that one run of a kernel reads and writes."""
    if line.opcode in SLICES:
        return 2 * main_bytes(line)
    if line.opcode == "dynamic-update-slice":
        return 2 * main_bytes(lines[line.operands[1]])
    if line.opcode in FETCHES:
        return shape_bytes(line.shape)
    if MARKS.search(line.rest):
        return 0
    callees = line.called("calls") if line.opcode == "fusion" else []
    if not callees:
        return main_bytes(line) + sum(main_bytes(lines[name]) for name in line.operands)
    body = program.computations[callees[0]]
    read = sum(
        min(main_bytes(lines[name]), used_bytes(program, body, position))
        for position, name in enumerate(line.operands)
    )
    return read + min(main_bytes(line), written_bytes(program, body))


def main_bytes(line: Instruction) -> int:
    """Counts bytes of an instruction's result that lie in main memory."""
    return shape_bytes(line.shape, main_memory=True)


def used_bytes(program: Program, body: list[Instruction], position: int) -> int:
    """Counts bytes that a fusion, perhaps a nested one, reads of its operand `position`."""
    parameter = next(
        line for line in body if line.opcode == "parameter" and line.arguments == str(position)
    )
    whole = shape_bytes(parameter.shape)
    count, waiting = 0, [parameter]
    while waiting:
        source = waiting.pop()
        for user in body:
            if source.name not in user.operands:
                continue
            is_first = user.operands[0] == source.name
            if user.opcode == "bitcast":
                waiting.append(user)
            elif user.opcode in SLICES and is_first:
                count += shape_bytes(user.shape)
            elif user.opcode == "fusion":
                inner = program.computations[user.called("calls")[0]]
                places = [i for i, name in enumerate(user.operands) if name == source.name]
                count += max(used_bytes(program, inner, place) for place in places)
            elif user.opcode == "tuple" or (user.opcode == "dynamic-update-slice" and is_first):
                continue  # handed on, or changed in place
            else:
                return whole
    return min(whole, count)


def written_bytes(program: Program, body: list[Instruction]) -> int:
    """Counts bytes that a fusion writes: its root, or the part an in-place update changes."""
    lines = {line.name: line for line in body}

    def written(line: Instruction) -> int:
        match line.opcode:
            case "parameter":
                return 0  # handed on
            case "tuple":
                return sum(written(lines[name]) for name in line.operands)
            case "bitcast":
                return written(lines[line.operands[0]])
            case "dynamic-update-slice":
                return shape_bytes(lines[line.operands[1]].shape)
            case "fusion":
                inner = written_bytes(program, program.computations[line.called("calls")[0]])
                return min(shape_bytes(line.shape), inner)
        return shape_bytes(line.shape, main_memory=True)

    return sum(written(line) for line in body if line.is_root)


def count_collectives(program: Program, num_devices: int) -> dict[str, int]:
    """Counts bytes that a device sends in a step, by kind.

    XLA may write one collective into several fusions that start, feed and await it; they share a
    channel and count once.
    """
    counts: dict[str, int] = {}
    seen: set[tuple[str, str, str]] = set()
    lines = program.by_name()

    def visit(computation: str, where: str, times: int, fused_into: str) -> None:
        for line in program.computations[computation]:
            if is_collective(line.opcode):
                channel = re.search(r"channel_id=(\d+)", line.rest)
                mark = (where, line.opcode, channel[1] if channel else line.name)
                if mark in seen:
                    continue
                seen.add(mark)
                kind = line.opcode.removesuffix("-start")
                if kind == "all-reduce" and "reduce-scatter" in fused_into:
                    kind = "reduce-scatter"
                size = group_size(line.rest, num_devices)
                sent = times * sent_bytes(kind, array_bytes(lines, line), size)
                counts[kind] = counts.get(kind, 0) + sent
            elif line.opcode == "fusion" or line.opcode.startswith("async"):
                for callee in line.called("calls"):
                    visit(callee, where, times, fused_into or line.name + callee)

    for name, times in executions(program).items():
        visit(name, name, times, "")
    return counts


def array_bytes(lines: dict[str, Instruction], line: Instruction) -> int:
    """Takes the larger of a collective's operands and result (an async start's holds both)."""
    operands = sum(shape_bytes(lines[name].shape) for name in line.operands if name in lines)
    result = shape_bytes(line.shape)
    return max(operands, result - operands if line.opcode.endswith("-start") else result)


def sent_bytes(kind: str, size: int, group: int) -> int:
    """Computes equation (2)."""
    if kind == "collective-permute":
        return size
    share = size * (group - 1) // group
    return 2 * share if kind == "all-reduce" else share


def group_size(rest: str, num_devices: int) -> int:
    """Counts the devices that take part in one instance of a collective.

    `replica_groups` is written as {{0,1},{2,3}}, as [groups,size]<=[...], or as
    mesh['x'=2,'y'=8] {'y'}.
    """
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return len(listed[1].split(","))
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]", rest)
    if tiled:
        return int(tiled[2])
    named = re.search(r"replica_groups=\w*mesh\w*\[([^\]]*)\]\s*\{([^}]*)\}", rest)
    if named:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        axes = re.findall(r"'([^']+)'", named[2])
        return math.prod(int(sizes[axis]) for axis in axes)
    return num_devices
