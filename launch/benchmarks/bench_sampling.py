r"""Sampling: what guidance in an interval saves, batches, and decoding beside it; JSON lines.

    python launch/benchmarks/bench_sampling.py --config=configs/dit_dino.py \
        --config.precision=bf16 --config.sample.batch_size=64 --measure=interval
    python launch/benchmarks/bench_sampling.py --config=configs/dit_dino.py \
        --config.precision=bf16 --config.sample.num_steps=11 --measure=batch,loop

"interval": classifier-free guidance at all times, in intervals of them, and none. An evaluation is
one of the network on a batch; guidance makes two. Evaluations saved should be time saved.
"batch": noise to images, unguided, at several batch sizes.
"loop": images as numpy arrays by `sampling.generate`, which queues a batch while the one before is
decoded and copied, beside the same batches one after the other; they are compared bit for bit.
Weights are random.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import app, flags
from bench import CONFIG, facts, random_latents
from flax import nnx

from launch.benchmarks import timing
from rae_dit.config import Config, from_config_dict
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.planning.compiled import without_files
from rae_dit.sampling.codec import decode
from rae_dit.sampling.generate import Generator, generate
from rae_dit.sampling.latents import run_sampler
from rae_dit.setup import models, weights
from rae_dit.setup.sampling import generation_settings, sampler_options
from rae_dit.training.sharding import batch_sharding, make_mesh

MEASURED = flags.DEFINE_list("measure", ["interval", "batch", "loop"], "What is measured.")
INTERVALS = [(0.0, 1.0), (0.5, 1.0), (0.1, 0.9)]
SIZES = flags.DEFINE_list("sizes", ["64", "128", "256", "512"], "Batches of part 'batch'.")
CFG_SCALE = 1.5
LOOP_BATCHES = 4


def main(_: list[str]) -> None:
    """Prints the lines of every part."""
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        ddt = nnx.merge(*weights.initialize(models.make_ddt, config, mesh))
        rae = nnx.merge(*weights.place_rae(config, mesh, decoder=True))
        generator = Generator(ddt, rae, mesh)
        for part in MEASURED.value:
            for line in MEASUREMENTS[part](config, generator):
                print(json.dumps({"part": part} | line | facts(config)), flush=True)


def measure_interval(config: Config, generator: Generator) -> Iterator[dict[str, Any]]:
    """Times latents with guidance in several intervals, and without any."""
    options = sampler_options(config)
    times = Euler().times(options.steps, options.shift, grid=options.grid)[:-1]
    whole: tuple[int, float] | None = None
    for interval in [*INTERVALS, None]:
        low, high = interval or (2.0, 2.0)
        evaluations = sum(2 if low <= time <= high else 1 for time in times)
        inside = dataclasses.replace(options, interval=interval or (0.0, 1.0))
        scale = 1.0 if interval is None else CFG_SCALE
        call = sampler(config, generator, inside, cfg_scale=scale)
        _, seconds = timing.median_seconds(call, jax.block_until_ready, windows=2, repeats=1)
        whole = whole or (evaluations, seconds)
        yield {
            "interval": interval,
            "batch": config.sample.batch_size,
            "evaluations": evaluations,
            "seconds": round(seconds, 3),
            "images_per_second": round(config.sample.batch_size / seconds, 2),
            "evaluations_saved": round(1 - evaluations / whole[0], 4),
            "time_saved": round(1 - seconds / whole[1], 4),
        }


def measure_batch(config: Config, generator: Generator) -> Iterator[dict[str, Any]]:
    """Times noise to images at several batch sizes."""
    graph, parameters = nnx.split(generator.rae)
    for size in map(int, SIZES.value):
        sample = dataclasses.replace(config.sample, batch_size=size)
        changed = dataclasses.replace(config, sample=sample)
        latents = sampler(changed, generator, sampler_options(changed), cfg_scale=1.0)
        seconds = {}
        for name, call in (
            ("latents", latents),
            ("images", lambda latents=latents: decode(graph, parameters, latents())),
        ):
            found = timing.median_seconds(call, jax.block_until_ready, windows=2, repeats=1)
            seconds[name] = found[1]
        yield {
            "batch": size,
            "num_steps": config.sample.num_steps,
            "latents_per_second": round(size / seconds["latents"], 2),
            "images_per_second": round(size / seconds["images"], 2),
        }


def measure_loop(config: Config, generator: Generator) -> Iterator[dict[str, Any]]:
    """Times the loop of the modes beside batches that wait for each other."""
    settings, size = generation_settings(config), config.sample.batch_size
    labels = [i % config.data.num_classes for i in range(LOOP_BATCHES * size)]

    def together() -> np.ndarray:
        return np.concatenate(list(generate(generator, settings, labels, cfg_scale=1.0)))

    def one_by_one() -> np.ndarray:
        starts = range(0, len(labels), size)
        parts = [
            generate(generator, settings, labels[i : i + size], cfg_scale=1.0, first=i)
            for i in starts
        ]
        return np.concatenate([images for part in parts for images in part])

    together()  # compiles
    seconds, images = {}, {}
    for name, call in (("queued", together), ("one_by_one", one_by_one)):
        begun = time.perf_counter()
        images[name] = call()
        seconds[name] = time.perf_counter() - begun
    yield {
        "batch": size,
        "batches": LOOP_BATCHES,
        "num_steps": config.sample.num_steps,
        "queued_images_per_second": round(len(labels) / seconds["queued"], 2),
        "one_by_one_images_per_second": round(len(labels) / seconds["one_by_one"], 2),
        "equal_bits": bool((images["queued"] == images["one_by_one"]).all()),
    }


def sampler(
    config: Config, generator: Generator, options: Any, *, cfg_scale: float
) -> Callable[[], jax.Array]:
    """Returns a call that queues the latents of a batch."""
    noise = jax.device_put(random_latents(config), batch_sharding(generator.mesh))
    labels = np.arange(len(noise), dtype=np.int32) % config.data.num_classes
    on_devices = jax.device_put(labels, batch_sharding(generator.mesh))
    return lambda: run_sampler(generator.ddt, noise, on_devices, options, cfg_scale=cfg_scale)


MEASUREMENTS = {"interval": measure_interval, "batch": measure_batch, "loop": measure_loop}


if __name__ == "__main__":
    app.run(main)
