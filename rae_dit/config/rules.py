"""Checks that several sections of the configuration share; pure functions of numbers."""

import math
import re

from rae_dit.config.check import ConfigError, invalid_value


def check_heads(
    section: str, hidden_size: int, num_heads: int, *, rope: bool, index: int | None = None
) -> None:
    """Checks that attention heads divide the width, and that rotary positions fit a head.

    Args:
        section: name of the section, for the message.
        hidden_size: width of a token.
        num_heads: attention heads.
        rope: whether RoPE rotates pairs along two axes, so that widths are multiples of 4.
        index: position of both numbers in their tuples; None if they are plain numbers.

    Raises:
        ConfigError: names the nearest numbers of heads that fit.
    """
    place = "" if index is None else f"[{index}]"
    multiple = 4 if rope else 1
    fitting = [n for n in range(1, hidden_size + 1) if hidden_size % (n * multiple) == 0]
    if num_heads in fitting:
        return
    if not fitting:
        raise invalid_value(f"{section}.hidden_size{place}", hidden_size, "a multiple of 4 (RoPE)")
    width = f"{section}.hidden_size{place} = {hidden_size}"
    if hidden_size % num_heads:
        reason = f"{width} is not divisible by {section}.num_heads{place} = {num_heads}"
    else:
        reason = (
            f"{section}.num_heads{place} = {num_heads} gives heads of {hidden_size // num_heads} "
            f"of {width}, and RoPE needs a multiple of 4"
        )
    below = [n for n in fitting if n < num_heads][-1:]
    above = [n for n in fitting if n > num_heads][:1]
    raise ConfigError(f"{reason}; use {_either(below + above)} heads")


def check_one_origin(section: str, pretrained: str, checkpoint: str) -> None:
    """Checks that at most one of `pretrained` and `checkpoint` is given.

    Raises:
        ConfigError: both are given.
    """
    if pretrained and checkpoint:
        raise invalid_value(
            f"{section}.checkpoint",
            checkpoint,
            f"'' because {section}.pretrained is {pretrained!r}; give one of the two",
        )


def check_attention(attention: str, precision: str, platform: str) -> None:
    """Checks that the attention kernel exists on this platform.

    Args:
        attention: `compute.attention`.
        precision: of the config.
        platform: "cpu", "gpu" or "tpu".

    Raises:
        ConfigError: it does not.
    """
    home = {"cudnn": "gpu", "splash": "tpu"}.get(attention, platform)
    if home != platform:
        expected = f"'auto' or 'xla' on {platform}; {attention!r} is for {home}"
        raise invalid_value("compute.attention", attention, expected)
    if attention == "cudnn" and precision not in ("bf16", "fp8"):
        expected = f"'auto' or 'xla' with precision = {precision!r}; cuDNN's is for bf16"
        raise invalid_value("compute.attention", attention, expected)


def parse_labels(labels: str, num_classes: int) -> tuple[int, ...]:
    """Reads `sample.labels`.

    Args:
        labels: '' for all classes in turn, or numbers and ranges such as '0,1,2', '0-9', '3,7-9'.
        num_classes: labels lie in [0, num_classes).

    Returns:
        The labels in the order given; all classes for ''.

    Raises:
        ConfigError: not such a list, a descending range, or a label out of range.
    """
    if not labels:
        return tuple(range(num_classes))
    found: list[int] = []
    for part in labels.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < num_classes:
            raise invalid_value(
                "sample.labels",
                labels,
                f"'' or labels in [0, {num_classes - 1}] such as '0,1,2' or '0-9'",
            )
        found.extend(range(first, last + 1))
    return tuple(found)


def check_decay(
    section: str,
    *,
    learning_rate: float,
    final_learning_rate: float,
    warmup_steps: int,
    decay_end_step: int,
) -> None:
    """Checks that the learning rate's decay starts before it ends and does not rise.

    Args:
        section: name of the section, for the message.
        learning_rate: where the decay begins.
        final_learning_rate: where it ends.
        warmup_steps: its first step.
        decay_end_step: its last one.

    Raises:
        ConfigError: the decay ends before it begins, or above the rate it begins at.
    """
    if decay_end_step <= warmup_steps:
        expected = f"more than {section}.warmup_steps = {warmup_steps}"
        raise invalid_value(f"{section}.decay_end_step", decay_end_step, expected)
    if final_learning_rate > learning_rate:
        expected = f"at most {section}.learning_rate = {learning_rate}"
        raise invalid_value(f"{section}.final_learning_rate", final_learning_rate, expected)


def in_steps(steps: int, epochs: float | None, steps_per_epoch: int) -> int:
    """Converts a length to steps: `epochs` if given, else `steps`."""
    return steps if epochs is None else round(epochs * steps_per_epoch)


def check_split(
    *,
    batch_size: int,
    accumulate_steps: int,
    fsdp: int,
    num_devices: int,
    num_processes: int,
    rows: int = 1,
) -> None:
    """Checks that parameters and batch can be divided among devices.

    Args:
        batch_size: global batch, images per optimizer step.
        accumulate_steps: parts the batch is cut into before it is divided among devices.
        fsdp: devices that share one copy of the parameters.
        num_devices: devices of all processes.
        num_processes: each loads an equal share of the batch.
        rows: those of a device are a multiple of so many.

    Raises:
        ConfigError: names the values of fsdp that fit, or the nearest batch sizes that fit.
    """
    if num_devices % fsdp:
        fitting = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
        raise invalid_value(
            "sharding.fsdp", fsdp, f"a divisor of the {num_devices} devices: {_either(fitting)}"
        )
    unit = math.lcm(num_devices * math.lcm(accumulate_steps, rows), num_processes)
    if batch_size % unit:
        below = batch_size // unit * unit
        nearest = [size for size in (below, below + unit) if size]
        raise invalid_value(
            "data.batch_size",
            batch_size,
            f"a multiple of {unit} ({num_devices} devices x {accumulate_steps} accumulation "
            f"steps{f', {rows} rows each' if rows > 1 else ''}, {num_processes} processes); use "
            f"{_either(nearest)}",
        )


def _either(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in numbers)
