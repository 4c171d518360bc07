"""Plan of a training step on given devices: memory, arithmetic, traffic, time, advice."""

import dataclasses
import logging
from typing import Any

import jax

from rae_dit.config import Config, check_devices
from rae_dit.flops import peak_flops, train_flops
from rae_dit.hardware import Device, find_device
from rae_dit.planning import hlo
from rae_dit.planning.advice import advise
from rae_dit.planning.compiled import Compiled, Step, abstract_step, compile_step, without_files
from rae_dit.planning.cross_compile import cross_compile_step
from rae_dit.planning.max_batch import Point, largest_batch, second_batch
from rae_dit.planning.memory import (
    Memory,
    Replicated,
    best_fsdp,
    count_memory,
    replicated_parameters,
)
from rae_dit.planning.roofline import Roofline, predict
from rae_dit.planning.topology import find_devices, is_compile_only
from rae_dit.planning.traffic import Traffic, count_traffic
from rae_dit.setup.objectives import make_task
from rae_dit.training.sharding import make_mesh

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Needs of a training step; bytes and seconds are those of one device.

    Attributes:
        num_devices: of the mesh.
        device_kind: as JAX names it.
        mesh: sizes of its axes.
        batch_size: global.
        memory: see `Memory`.
        limit: bytes that a device has for it; None for a device without facts.
        fits: whether `memory` is within `limit`; None when that is unknown.
        replicated: large parameters that are whole on every device though they should be split.
        model_flops: of a step, over all devices.
        traffic: None where the compiler refused the program, and so left none to read.
        roofline: None without traffic or facts.
        images_per_second: predicted, over all devices.
        mfu: predicted share of the peak that the model's FLOPs make.
        largest_batch: global; None when it was not looked for or there is no limit.
        advice: settings to try.
        compile_seconds: of the step.
    """

    num_devices: int
    device_kind: str
    mesh: dict[str, int]
    batch_size: int
    memory: Memory
    limit: int | None
    fits: bool | None
    replicated: list[Replicated]
    model_flops: int
    traffic: Traffic | None
    roofline: Roofline | None
    images_per_second: float | None
    mfu: float | None
    largest_batch: int | None
    advice: list[str]
    compile_seconds: float


def make_plan(config: Config, topology: str, *, find_largest: bool) -> Plan:
    """Compiles the config's training step for the devices of a topology and reads the program.

    Args:
        config: its weights are not loaded; random ones have the same sizes.
        topology: a name for which `topology.prepare` has readied the environment.
        find_largest: compiles a second batch, to say how large it may be.

    Raises:
        ConfigError: there are no such devices, or batch or parameters cannot be divided among them.
    """
    config = without_files(config)
    devices = find_devices(topology)
    check_devices(config, platform=devices[0].platform, num_devices=len(devices), num_processes=1)
    mesh = make_mesh(config.sharding.fsdp, devices)
    kind = devices[0].device_kind
    facts = find_device(kind)

    task = make_task(config)
    step = abstract_step(config, mesh)
    compiled = compile_and_log(config, step, topology)
    memory = count_memory(step, compiled.temporary_bytes)
    limit = memory_limit(devices[0], facts)
    fits = None if limit is None else bool(compiled.text) and memory.total <= limit

    largest = None
    if find_largest and limit is not None:
        largest = search_largest(config, mesh, topology, memory, limit)
    replicated = replicated_parameters(step, mesh)
    traffic = read_traffic(compiled, len(devices))
    roofline = (
        predict(config, task.work, facts, traffic, len(devices)) if facts and traffic else None
    )
    flops = train_flops(task.work) * config.data.batch_size
    peak = peak_flops(kind, config.precision)
    return Plan(
        num_devices=len(devices),
        device_kind=kind,
        mesh=dict(mesh.shape),
        batch_size=config.data.batch_size,
        memory=memory,
        limit=limit,
        fits=fits,
        replicated=replicated,
        model_flops=flops,
        traffic=traffic,
        roofline=roofline,
        images_per_second=config.data.batch_size / roofline.step if roofline else None,
        mfu=flops / (roofline.step * peak * len(devices)) if roofline and peak else None,
        largest_batch=largest,
        advice=advise(
            config,
            memory,
            replicated,
            limit=limit,
            best_fsdp=best_fsdp(task.module, len(devices)),
            largest=largest,
            on_tpu=devices[0].platform == "tpu",
            network_binds=roofline is not None and roofline.binds == "network",
            collectives=traffic.collectives if traffic else {},
        ),
        compile_seconds=compiled.seconds,
    )


def memory_limit(device: jax.Device, facts: Device | None) -> int | None:
    """Returns the bytes that a program can use, by the device, else by hardware.py."""
    try:
        reported = (device.memory_stats() or {}).get("bytes_limit")
    except (jax.errors.JaxRuntimeError, NotImplementedError):  # a device that does not exist
        reported = None
    return reported or (facts.memory if facts else None)


def compile_and_log(config: Config, step: Step, topology: str) -> Compiled:
    """Compiles a config's step and logs before and after: it may take minutes."""
    log.info("compiling a step of %d images for %s ...", config.data.batch_size, topology)
    if is_compile_only(topology):
        compiled = cross_compile_step(config, topology)
    else:
        compiled = compile_step(step)
    log.info("... took %.0f s", compiled.seconds)
    return compiled


def search_largest(
    config: Config, mesh: jax.sharding.Mesh, topology: str, memory: Memory, limit: int
) -> int:
    """Compiles a second batch size and fits the largest one."""
    unit = len(mesh.devices.flat) * config.optim.accumulate_steps
    batch_size = second_batch(config.data.batch_size, unit)
    other = dataclasses.replace(
        config, data=dataclasses.replace(config.data, batch_size=batch_size)
    )
    step = abstract_step(other, mesh)
    second = count_memory(step, compile_and_log(other, step, topology).temporary_bytes)
    return largest_batch(
        Point(config.data.batch_size, memory.batch + memory.temporaries),
        Point(batch_size, second.batch + second.temporaries),
        fixed=memory.state,
        limit=limit,
        unit=unit,
    )


def read_traffic(compiled: Compiled, num_devices: int) -> Traffic | None:
    """Counts the traffic of a program, if there is one."""
    return count_traffic(hlo.parse(compiled.text), num_devices) if compiled.text else None


def to_dict(plan: Plan) -> dict[str, Any]:
    """Converts a plan to plain values for JSON; named tuples become objects."""

    def plain(value: Any) -> Any:
        if hasattr(value, "_asdict"):
            return {name: plain(inner) for name, inner in value._asdict().items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return value

    values = {field.name: plain(getattr(plan, field.name)) for field in dataclasses.fields(plan)}
    values["memory"] |= {"total": plan.memory.total}
    if plan.roofline:
        values["roofline"] |= {"binds": plan.roofline.binds}
    return values
