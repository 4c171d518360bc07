r"""Training on JPEGs beside training on cached latents: one JSON line per measurement.

    python launch/benchmarks/bench_latents.py --sizes=s,b,xl --directory=/tmp/bench_latents

It writes JPEGs of ImageNet's size, encodes them by --mode=latents, and takes the steps of
`rae_dit.main` with its loader: first on one batch that lies on the device, then on batches that the
loader reads. Weights are random. Files are in the page cache, so that a disk would add its time:
"to_device_mb_per_second" says what a cache must give.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs import dit_dino, dit_dino_b, dit_dino_s
from launch.benchmarks.plain_images import CLASSES, write_jpegs
from rae_dit.config import Config, from_config_dict
from rae_dit.data.latents import Manifest
from rae_dit.data.workers import fitting_workers
from rae_dit.modes.latents import latents
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.run import open_run
from rae_dit.training.history import History
from rae_dit.training.run import train_stream
from rae_dit.training.sharding import make_mesh, shard_batch

SIZES = {"s": dit_dino_s, "b": dit_dino_b, "xl": dit_dino}
PICTURES, NAMES = 256, 8
WARM_STEPS = 3
LARGEST_RECORD = 400_000  # bytes, of bfloat16


def main() -> None:
    """Prints a line for the cache and one for each size and kind of data."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="s,b,xl")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--directory", default=tempfile.gettempdir() + "/bench_latents")
    options = parser.parse_args()
    options.workers = fitting_workers(options.workers, options.batch_size * LARGEST_RECORD)
    root = Path(options.directory)
    if not (root / "images").exists():
        write_jpegs(root / "images", PICTURES, NAMES)
    for size in options.sizes.split(","):
        config = configure(SIZES[size], root, options)
        for storage in ("bf16", "fp8"):
            if not (root / storage).exists():
                emit({"part": "cache", "storage": storage} | make_cache(config, storage, root))
        for kind in ("jpeg", "bf16", "fp8"):
            if kind == "fp8" and size != "s":  # where the loader may be the limit
                continue
            emit({"part": "train", "size": size, "data": kind} | measure(config, kind, options))


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


def measure(config: Config, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times steps on a batch at rest, and steps on what the loader reads."""
    if kind != "jpeg":
        path = str(Path(options.directory) / kind / "train")
        section = dataclasses.replace(config.data, source="latents", path=path)
        config = dataclasses.replace(config, data=section)
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        run = open_run(config, mesh)
        state = run.program.create()
        with train_stream(run, 0, History()) as batches:

            def read() -> Iterator[dict[str, Any]]:
                while True:
                    yield shard_batch(next(batches), mesh)

            begun = time.perf_counter()
            first = next(read())
            state, metrics = run.program.step(state, run.frozen, first)
            jax.block_until_ready(metrics)
            compiled = time.perf_counter() - begun
            seconds = {}
            for name, stream in (("alone", iter(lambda: first, None)), ("fed", read())):
                for _ in range(WARM_STEPS):
                    state, metrics = run.program.step(state, run.frozen, next(stream))
                jax.block_until_ready(metrics)
                begun = time.perf_counter()
                for _ in range(options.steps):
                    state, metrics = run.program.step(state, run.frozen, next(stream))
                jax.block_until_ready(metrics)
                seconds[name] = (time.perf_counter() - begun) / options.steps
    rate = options.batch_size / seconds["fed"]
    size = sum(leaf.nbytes for leaf in first.values()) / options.batch_size
    jax.tree.map(lambda leaf: leaf.delete(), state)
    return {
        "batch": options.batch_size,
        "workers": options.workers,
        "step_ms_alone": round(1e3 * seconds["alone"], 1),
        "step_ms": round(1e3 * seconds["fed"], 1),
        "images_per_second": round(rate, 1),
        "to_device_mb_per_second": round(rate * size / 1e6, 1),
        "first_step_seconds": round(compiled, 1),
    }


if __name__ == "__main__":
    main()
