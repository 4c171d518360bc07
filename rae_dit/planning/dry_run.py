"""A command described before it does anything: network, memory, files that are read and written."""

import math
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rae_dit.config import Config, ConfigError, check_devices, to_dict
from rae_dit.planning.compiled import Step, abstract_step, without_files
from rae_dit.planning.memory import count_memory
from rae_dit.storage.places import is_url
from rae_dit.training.sharding import make_mesh
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.hub import HubId, hub_name, is_there
from rae_dit.workdir import newest_step

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
IMAGENET = 1_281_167  # images: lengths in epochs need some number, shapes do not depend on it
TRAINING = ("train", "probe")
NETWORKS = {"ddt": "a DiT^DH", "decoder": "a decoder", "encoder": "an encoder", "head": "a probe"}

# Fields with text that names no file to be read
NO_FILES = (
    *("sample.labels", "metrics.wandb_project", "checkpoint.best_metric", "sweep.metric"),
    *("sample.output_dir", "stats.output", "compute.compile_cache", "evaluate.reference_cache"),
)
FROM_HUB = ("encoder.pretrained", "decoder.pretrained", "ddt.pretrained", "sample.guide_checkpoint")


class Needed(NamedTuple):
    """A file that a config names.

    Attributes:
        field: of the config.
        value: of the field.
        state: what is known about it, in words.
        is_missing: whether the run would fail for it.
    """

    field: str
    value: str
    state: str
    is_missing: bool


def dry_run(config: Config, workdir: Path, mode: str) -> tuple[str, list[Needed]]:
    """Describes a run without reading, compiling or writing anything.

    Args:
        config: of the run.
        workdir: of the run.
        mode: of the run; network and memory are described for those that train.

    Returns:
        Some lines of text, and the files that are missing.

    Raises:
        ConfigError: the devices of this machine cannot share the work.
    """
    lines = [f"--mode={mode}, dry run: nothing is read, compiled or written"]
    if mode in TRAINING:
        devices = jax.devices()
        check_devices(
            config, platform=devices[0].platform, num_devices=len(devices), num_processes=1
        )
        step = abstract_step(
            without_files(config.in_steps(IMAGENET)), make_mesh(config.sharding.fsdp, devices)
        )
        lines += ["", *what(config, step), "", *memory(step)]
    files = list(needed_files(config))
    lines += ["", "Files that the config names"]
    lines += [f"  {file.field:<26}{file.value}: {file.state}" for file in files] or ["  none"]
    return "\n".join([*lines, "", *writes(workdir, mode)]), [f for f in files if f.is_missing]


def check_files(missing: list[Needed]) -> None:
    """Refuses a run for which a file is missing.

    Raises:
        ConfigError: there is one; names the first.
    """
    if missing:
        others = f" ({len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        raise ConfigError(
            f"{missing[0].field}: got {missing[0].value!r}; expected a path that exists{others}"
        )


def what(config: Config, step: Step) -> Iterator[str]:
    """Yields what is trained, and for how long."""
    devices = jax.devices()
    optim, images = config.optim, config.data.batch_size
    parts = optim.accumulate_steps
    length = f"{optim.max_epochs:g} epochs" if optim.max_epochs else f"{optim.max_steps:,} steps"
    yield (
        f"Trains {NETWORKS[config.trained_network]} of {numbers(step.state.params):,} parameters; "
        f"{numbers(step.frozen):,} more are frozen"
    )
    yield (
        f"  {length} of {images:,} images, {config.data.image_size} px, {config.precision}, "
        f"{optim.name}, learning rate {optim.learning_rate:g}"
    )
    yield (
        f"  on {len(devices)} x {devices[0].device_kind}, {images // len(devices):,} images each"
        f"{f' in {parts} parts' if parts > 1 else ''}, fsdp {config.sharding.fsdp}"
    )


def memory(step: Step) -> Iterator[str]:
    """Yields the memory of the state on each device, which follows from shapes alone."""
    found = count_memory(step, 0)
    yield "Memory of one device"
    for name in ("parameters", "ema", "optimizer", "discriminator", "frozen", "batch"):
        if size := getattr(found, name):
            yield f"  {name:<26}{size_text(size):>12}"
    yield f"  {'together':<26}{size_text(found.total):>12}"
    yield "  activations and gradients come on top: python -m rae_dit.plan compiles a step to tell"


def size_text(size: int) -> str:
    """Writes a number of bytes in GiB, MiB or KiB."""
    unit, name = next(((u, n) for u, n in UNITS if size >= u), UNITS[-1])
    return f"{size / unit:.2f} {name}"


def numbers(tree: Any) -> int:
    """Counts the numbers in a tree of shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def needed_files(config: Config) -> Iterator[Needed]:
    """Yields the files that a config names, in its order."""
    for section, values in to_dict(config).items():
        for name, value in values.items() if isinstance(values, dict) else ():
            field = f"{section}.{name}"
            if isinstance(value, str) and value and may_be_file(config, field):
                yield look_for(field, value)
    files = config.data.source not in ("digits", "synthetic")
    if files and not config.data.path:
        yield Needed("data.path", "", f"MISSING: source {config.data.source!r} needs it", True)


def may_be_file(config: Config, field: str) -> bool:
    """Tells whether a field's text is free, as that of paths is, and not one of some words."""
    section, name = field.split(".")
    declared = type(getattr(config, section)).__dataclass_fields__[name].type
    return declared is str and field not in NO_FILES


def look_for(field: str, value: str) -> Needed:
    """Says whether a path, a pattern or a hub id is there; asks no network."""
    if is_url(value):
        return Needed(field, value, "on a remote store, which was not asked", False)
    path = value.split("#")[0] if field.startswith("data.") else value  # TFDS: PATH#split
    if is_there(Path(path)) and Path(path).is_dir():
        return Needed(field, value, f"a directory of {sum(1 for _ in Path(path).iterdir())}", False)
    if is_there(Path(path)):
        return Needed(field, value, f"{Path(path).stat().st_size:,} bytes", False)
    if any(sign in path for sign in "*?["):
        count = len(glob(path))
        return Needed(field, value, f"{count} files" if count else "MISSING", not count)
    if "{" in path:
        inside = Path(path.partition("{")[0]).parent.is_dir()
        state = "a pattern, which was not opened" if inside else "MISSING"
        return Needed(field, value, state, not inside)
    return on_hub(field, value) if field in FROM_HUB else Needed(field, value, "MISSING", True)


def on_hub(field: str, value: str) -> Needed:
    """Says whether a hub id has been fetched before; a mistyped path is missing."""
    try:
        wanted = HubId.parse(hub_name(value))
    except WeightsError:
        return Needed(field, value, "MISSING", True)
    try:
        return Needed(field, value, f"in {wanted.download([], offline=True)}", False)
    except (OSError, ValueError):
        return Needed(field, value, "of the Hugging Face hub; fetched when first used", False)


def writes(workdir: Path, mode: str) -> Iterator[str]:
    """Yields where results go, and what is there already."""
    yield f"Writes into {workdir}/ (docs/outputs.md lists the files)"
    step = newest_step(workdir)
    if mode in TRAINING and step is not None:
        yield f"  it holds step {step:,}, from which the run continues"
    elif not workdir.exists():
        yield "  it does not exist yet"
