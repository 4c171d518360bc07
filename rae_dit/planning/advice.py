"""Advice: settings to change when a step does not fit or wastes memory."""

from rae_dit.config import Config
from rae_dit.planning.memory import Memory, Replicated

GIB = 2**30

# Measured on an H200 for DiT^DH-XL at 256 and 512 px: docs/measured/h200_memory_2026-12-01.jsonl
REMAT = {
    "dots": "keeps the results of matrix products and computes the rest again: 6 to 10 % more time "
    "for 25 % less memory (DiT^DH-XL, H200)",
    "full": "keeps each block's input only; one more forward pass: 26 to 28 % more time for 63 % "
    "less memory (DiT^DH-XL, H200)",
}


def advise(
    config: Config,
    memory: Memory,
    replicated: list[Replicated],
    *,
    limit: int | None,
    best_fsdp: int,
    largest: int | None,
    on_tpu: bool,
    network_binds: bool,
    collectives: dict[str, int],
) -> list[str]:
    """Lists settings to try, most useful first; each line starts with the flag.

    Args:
        config: what was planned.
        memory: on one device.
        replicated: parameters that are whole on every device though `sharding.fsdp` > 1.
        limit: bytes of one device; None when unknown.
        best_fsdp: the value with which a device holds the fewest parameters.
        largest: batch that fits; None when unknown.
        on_tpu: whether the devices are TPUs.
        network_binds: whether collectives take longer than kernels.
        collectives: bytes that a device sends in a step, by kind; empty when unknown.
    """
    advice = []
    if replicated and config.sharding.fsdp != best_fsdp:
        whole = sum(parameter.bytes for parameter in replicated)
        advice.append(
            f"--config.sharding.fsdp={best_fsdp}: {config.sharding.fsdp} divides no axis of "
            f"some kernels: {whole / GIB:.2f} GiB of parameters, and as much again for EMA and "
            "each moment, lie whole on every device"
        )
    if config.sharding.fsdp > 2 and collectives:
        half = f"--config.sharding.fsdp={config.sharding.fsdp // 2}"
        if "all-gather" not in collectives:
            advice.append(
                f"{half}: here the compiler gathers parameters with all-reduces, which send twice "
                "as much; it may not where several copies of the model share the mesh"
            )
        elif network_binds and mostly_reduced(collectives):
            advice.append(
                f"{half}: the network binds, and the compiler adds up most gradients whole, which "
                "sends twice as much as giving each device its part; it may not where parts are "
                "larger"
            )
    if on_tpu and not config.compute.scan_layers:
        advice.append("--config.compute.scan_layers=True: compiles in a fraction of the time")
    if network_binds and largest and largest >= 2 * config.data.batch_size:
        advice.append(
            f"--config.data.batch_size={2 * config.data.batch_size}: the network binds, and sends "
            "as many bytes for more images"
        )
    weaker = {"none": None, "dots": "none", "full": "dots"}[config.compute.remat]
    if limit is not None and weaker and memory.total <= limit / 2:
        advice.append(
            f"--config.compute.remat={weaker}: {(limit - memory.total) / GIB:.0f} GiB are free, "
            "and what the backward pass computes again takes time"
        )
    if limit is None or memory.total <= limit:
        return advice
    if memory.state > limit / 4 and config.sharding.fsdp < best_fsdp and not replicated:
        advice.append(
            f"--config.sharding.fsdp={best_fsdp}: parameters, EMA and moments take "
            f"{memory.state / GIB:.2f} GiB"
        )
    stronger = {"none": ["dots", "full"], "dots": ["full"], "full": []}[config.compute.remat]
    advice += [f"--config.compute.remat={policy}: {REMAT[policy]}" for policy in stronger]
    if config.compute.scan_layers and not on_tpu:
        advice.append(
            "--config.compute.scan_layers=False: an unrolled stack needed 45 GiB of temporaries "
            "where a scanned one needed 76 (DiT^DH-XL, 128 images, H200)"
        )
    parts = 2 * config.optim.accumulate_steps
    advice.append(f"--config.optim.accumulate_steps={parts}: the same batch in smaller parts")
    if largest:
        advice.append(f"--config.data.batch_size={largest}: the largest that fits as it is")
    return advice


def mostly_reduced(collectives: dict[str, int]) -> bool:
    """Tells whether more gradients of split parameters are all-reduced than are scattered.

    For as many gradients the former sends twice the bytes.
    """
    return collectives.get("all-reduce", 0) > 2 * collectives.get("reduce-scatter", 0)
