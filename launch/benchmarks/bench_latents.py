r"""Training on JPEGs beside training on cached latents: one JSON line per measurement.

    python launch/benchmarks/bench_latents.py --rows=s:jpeg,s:bf16,s:fp8 --directory=/tmp/latents

It writes a few JPEGs of ImageNet's size, encodes them by --mode=latents, and compiles the steps of
all rows at once. Then each row in turn: the loader alone, once the batches that it had ready are
taken; the steps of `rae_dit.main` on one batch that lies on the device; and steps on what the
loader reads. Weights are random. Few files are read again and again from the page cache, so that a
disk would add its time: "to_device_mb_per_second" says what a cache must give.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs import dit_dino, dit_dino_b, dit_dino_s
from launch.benchmarks import timing
from launch.benchmarks.plain_images import CLASSES, write_jpegs
from launch.benchmarks.together import at_once
from rae_dit.config import Config, from_config_dict
from rae_dit.data.latents import MANIFEST, Manifest
from rae_dit.data.workers import fitting_workers
from rae_dit.modes.latents import latents
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.run import open_run
from rae_dit.training.ahead import compile_step
from rae_dit.training.history import History
from rae_dit.training.run import Run, train_stream
from rae_dit.training.sharding import make_mesh, mesh_context, shard_batch

ROWS = "s:jpeg,s:bf16,b:bf16,xl:jpeg,xl:bf16"
SIZES = {"s": dit_dino_s, "b": dit_dino_b, "xl": dit_dino}
PICTURES, NAMES = 64, 8
WARM_STEPS = 2
READY = 4  # batches that a worker may have ready: two in shared memory, two in its own
LONGEST_PAUSE = 10.0  # seconds
LARGEST_RECORD = 400_000  # bytes, of bfloat16


def main() -> None:
    """Prints a line for the cache and one for each row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default=ROWS, help="size:data, ...")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12, help="of each kind, timed together")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--directory", default=tempfile.gettempdir() + "/bench_latents")
    parser.add_argument("--turn", default="", help="prepare, make PATH.ready, wait for PATH.go")
    options = parser.parse_args()
    options.workers = fitting_workers(options.workers, options.batch_size * LARGEST_RECORD)
    root = Path(options.directory)
    if not (root / "images").exists():
        write_jpegs(root / "images", PICTURES, NAMES)
    rows = [tuple(row.split(":")) for row in options.rows.split(",")]
    configs = [configure(SIZES[size], root, options) for size, _ in rows]
    mesh = make_mesh(1)
    with jax.default_matmul_precision(models.matmul_precision(configs[0])), mesh_context(mesh):
        for storage in sorted({data for _, data in rows} - {"jpeg"}):
            if not (root / storage / "train" / MANIFEST).exists():
                emit({"part": "cache", "storage": storage} | make_cache(configs[0], storage, root))
        runs = [
            open_run(with_data(config, data, root), mesh)
            for config, (_, data) in zip(configs, rows, strict=True)
        ]
        precision = models.matmul_precision(configs[0])
        at_once(configs[0], mesh, [functools.partial(compile_step, run, precision) for run in runs])
        timing.wait_for_turn(options.turn)
        for run, (size, data) in zip(runs, rows, strict=True):
            emit({"part": "train", "size": size, "data": data} | measure(run, options))


def emit(line: dict[str, Any]) -> None:
    """Prints one line, with the device."""
    print(json.dumps(line | {"device": jax.devices()[0].device_kind}), flush=True)


def configure(module: Any, root: Path, options: argparse.Namespace) -> Config:
    """Returns the config of a size on the JPEGs, with weights from no file."""
    values = module.get_config()
    values.precision = "bf16"
    values.data.update(
        source="folder",
        path=str(root / "images"),
        num_classes=CLASSES,
        batch_size=options.batch_size,
        num_workers=options.workers,
    )
    values.metrics.telemetry = False
    return without_files(from_config_dict(values))


def make_cache(config: Config, storage: str, root: Path) -> dict[str, Any]:
    """Writes the latents, starts and compiles included."""
    section = dataclasses.replace(config.latents, storage=storage, output=str(root / storage))
    begun = time.monotonic()
    latents(dataclasses.replace(config, latents=section), root)
    seconds = time.monotonic() - begun
    manifest = Manifest.read(root / storage / "train")
    size = manifest.record_bytes * manifest.records_per_image
    return {
        "images": manifest.images,
        "seconds_with_start": round(seconds, 1),
        "gb_per_million_images": round(size / 1e3, 1),
    }


def with_data(config: Config, data: str, root: Path) -> Config:
    """Returns the config on JPEGs or on latents of a storage."""
    if data == "jpeg":
        return config
    section = dataclasses.replace(config.data, source="latents", path=str(root / data / "train"))
    return dataclasses.replace(config, data=section)


def measure(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Times the loader, steps on a batch at rest, and steps on what the loader reads."""
    state = run.program.create()
    metrics: Any = None

    def take(batch: Any) -> None:
        nonlocal state, metrics
        state, metrics = run.program.step(state, run.frozen, batch)

    def seconds_of(call: Callable[[], object], times: int) -> float:
        begun = time.perf_counter()
        for _ in range(times):
            call()
        jax.block_until_ready(metrics)
        return (time.perf_counter() - begun) / times

    workers = max(1, run.config.data.num_workers)
    with train_stream(run, 0, History()) as batches:
        first = shard_batch(next(batches), run.mesh)
        for _ in range(WARM_STEPS):
            take(first)
        jax.block_until_ready(metrics)
        alone = seconds_of(lambda: take(first), options.steps)
        seconds_of(lambda: next(batches), READY * workers)
        reading = seconds_of(lambda: next(batches), 2 * workers)  # whole rounds of the workers
        time.sleep(min(LONGEST_PAUSE, READY * workers * reading))  # till workers wait for steps
        fed = seconds_of(lambda: take(shard_batch(next(batches), run.mesh)), options.steps)
    rate = options.batch_size / fed
    size = sum(leaf.nbytes for leaf in first.values()) / options.batch_size
    jax.tree.map(lambda leaf: leaf.delete(), state)
    return {
        "batch": options.batch_size,
        "workers": run.config.data.num_workers,
        "loader_images_per_second": round(options.batch_size / reading, 1),
        "step_ms_alone": round(1e3 * alone, 1),
        "step_ms": round(1e3 * fed, 1),
        "images_per_second": round(rate, 1),
        "to_device_mb_per_second": round(rate * size / 1e6, 1),
    }


if __name__ == "__main__":
    main()
