"""A plan as text."""

from collections.abc import Iterator

from rae_dit.hardware import find_device
from rae_dit.planning.planner import Plan

GIB, MIB = 2**30, 2**20


def report(plan: Plan) -> str:
    """Formats a plan in sections: a line a number, with its unit."""
    return "\n".join([*setting(plan), *memory(plan), *work(plan), *time(plan), *advice(plan)])


def setting(plan: Plan) -> Iterator[str]:
    """Formats the step and its devices."""
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    yield f"{plan.num_devices} x {plan.device_kind}, mesh {mesh}"
    each = plan.batch_size / plan.num_devices
    yield f"batch {plan.batch_size}, {each:g} a device; compiled in {plan.compile_seconds:.0f} s"


def memory(plan: Plan) -> Iterator[str]:
    """Formats memory of one device, in GiB, or in MiB where there is less than one GiB."""
    found = plan.memory
    unit, name_of_unit = (GIB, "GiB") if found.total >= GIB else (MIB, "MiB")
    yield f"\nMemory of one device, {name_of_unit}"
    rows = {
        "parameters": found.parameters,
        "EMA": found.ema,
        "optimizer": found.optimizer,
        "discriminator": found.discriminator,
        "frozen networks": found.frozen,
        "batch": found.batch,
        "temporaries": found.temporaries,
        "together": found.total,
    }
    for name, size in rows.items():
        if size or name != "discriminator":
            yield f"  {name:<24}{size / unit:10.3f}"
    if plan.limit is not None:
        verdict = "fits" if plan.fits else "DOES NOT FIT"
        yield f"  {'there is':<24}{plan.limit / unit:10.3f}   {verdict}"
    if plan.largest_batch is not None:
        each = plan.largest_batch / plan.num_devices
        yield f"  {'largest batch':<24}{plan.largest_batch:10d}   {each:g} a device, by a line"
    if plan.replicated:
        yield "  whole on every device, though parameters should be split:"
        for parameter in plan.replicated[:5]:
            shape = "x".join(map(str, parameter.shape))
            yield f"    {parameter.path} {shape}: {parameter.bytes / unit:.3f}"
        if len(plan.replicated) > 5:
            yield f"    and {len(plan.replicated) - 5} more"


def work(plan: Plan) -> Iterator[str]:
    """Formats the work of one device in a step."""
    yield "\nOne step of one device"
    yield f"  {'model FLOPs':<24}{plan.model_flops / plan.num_devices / 1e12:10.3f} TFLOP"
    if plan.traffic is None:
        yield "  the compiler refused the program: no traffic to count"
        return
    yield f"  {'memory, products':<24}{plan.traffic.product_bytes / 1e9:10.3f} GB"
    yield f"  {'memory, other kernels':<24}{plan.traffic.other_bytes / 1e9:10.3f} GB"
    for kind, size in sorted(plan.traffic.collectives.items()):
        yield f"  {kind + ', sent':<24}{size / 1e9:10.3f} GB"


def time(plan: Plan) -> Iterator[str]:
    """Formats the roofline."""
    facts = find_device(plan.device_kind)
    if plan.roofline is None or facts is None:
        if facts is None:
            yield f"\nNo facts about {plan.device_kind!r}: no time (rae_dit/hardware.py)"
        return
    line = plan.roofline
    known = "measured" if facts.measured else "assumed, not measured"
    yield f"\nTime of a step, ms (shares of the peaks that are reached: {known})"
    for name in ("compute", "memory", "network"):
        mark = "   binds" if name == line.binds else ""
        yield f"  {name:<24}{1e3 * getattr(line, name):10.2f}{mark}"
    yield f"  {'predicted step':<24}{1e3 * line.step:10.2f}"
    if plan.images_per_second is not None and plan.mfu is not None:
        yield f"  {'images/s':<24}{plan.images_per_second:10.1f}   MFU {plan.mfu:.0%}"


def advice(plan: Plan) -> Iterator[str]:
    """Formats the advice."""
    if plan.advice:
        yield "\nTry"
        yield from (f"  {line}" for line in plan.advice)
