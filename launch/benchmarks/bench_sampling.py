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
Weights are random. Programs are compiled all at once, then run one after another; the device is
warmed before the windows.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags
from bench import CONFIG, TURN, random_latents
from flax import nnx

from launch.benchmarks import timing
from launch.benchmarks.facts import facts
from launch.benchmarks.together import at_once
from rae_dit.config import Config, from_config_dict
from rae_dit.diffusion.sampler import SamplerOptions
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.planning.compiled import without_files
from rae_dit.sampling.codec import decode
from rae_dit.sampling.generate import Generator, generate
from rae_dit.sampling.latents import integrate
from rae_dit.sampling.velocity import take_apart
from rae_dit.setup import models, weights
from rae_dit.setup.sampling import generation_settings, sampler_options
from rae_dit.training.sharding import batch_sharding, make_mesh, mesh_context

MEASURED = flags.DEFINE_list("measure", ["interval", "batch", "loop"], "What is measured.")
INTERVALS = [(0.0, 1.0), (0.5, 1.0), (0.1, 0.9)]
SIZES = flags.DEFINE_list("sizes", ["64", "128", "256", "512"], "Batches of part 'batch'.")
CFG_SCALE = 1.5
LOOP_BATCHES = 4


class Program(NamedTuple):
    """A compiled function with its arguments.

    Attributes:
        compile: makes the program without running it; JAX keeps it.
        call: queues a run.
    """

    compile: Callable[[], object]
    call: Callable[..., jax.Array]


class Interval(NamedTuple):
    """Latents with guidance in an interval; None for no guidance."""

    interval: tuple[float, float] | None
    evaluations: int
    latents: Program


class Batch(NamedTuple):
    """Latents of a batch of this size, and images of them."""

    size: int
    latents: Program
    decoding: Program


def main(_: list[str]) -> None:
    """Prints the lines of every part."""
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)), mesh_context(mesh):
        ddt = nnx.merge(*weights.initialize(models.make_ddt, config, mesh))
        rae = nnx.merge(*weights.place_rae(config, mesh, decoder=True))
        generator = Generator(ddt, rae, mesh)
        intervals = intervals_of(config, generator) if "interval" in MEASURED.value else []
        batches = batches_of(config, generator) if "batch" in MEASURED.value else []
        programs = [each.latents for each in intervals]
        programs += [made for each in batches for made in (each.latents, each.decoding)]
        at_once(config, mesh, [made.compile for made in programs])
        timing.wait_for_turn(TURN.value)
        begun = time.monotonic()
        while programs and time.monotonic() - begun < timing.WARM_SECONDS:
            jax.block_until_ready(programs[0].call())
        for line in measure_intervals(config, intervals):
            print(json.dumps({"part": "interval"} | line | facts(config)), flush=True)
        for line in measure_batches(config, batches):
            print(json.dumps({"part": "batch"} | line | facts(config)), flush=True)
        if "loop" in MEASURED.value:
            loop = functools.partial(loop_images, config, generator)
            print(json.dumps({"part": "loop"} | measure_loop(config, loop) | facts(config)))


def seconds_of(call: Callable[[], jax.Array]) -> float:
    """Returns the seconds of the second of three calls by length, after one that is not timed."""
    jax.block_until_ready(call())
    return float(np.median([timing.first_call(call, jax.block_until_ready) for _ in range(3)]))


def intervals_of(config: Config, generator: Generator) -> list[Interval]:
    """Makes the calls of part "interval"."""
    options = sampler_options(config)
    times = Euler().times(options.steps, options.shift, grid=options.grid)[:-1]
    found = []
    for interval in [*INTERVALS, None]:
        low, high = interval or (2.0, 2.0)
        evaluations = sum(2 if low <= time <= high else 1 for time in times)
        inside = dataclasses.replace(options, interval=interval or (0.0, 1.0))
        scale = 1.0 if interval is None else CFG_SCALE
        latents = sampler(config, generator, inside, cfg_scale=scale)
        found.append(Interval(interval, evaluations, latents))
    return found


def measure_intervals(config: Config, intervals: list[Interval]) -> Iterator[dict[str, Any]]:
    """Times latents with guidance in several intervals, and without any."""
    whole: tuple[int, float] | None = None
    for interval, evaluations, latents in intervals:
        seconds = seconds_of(latents.call)
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


def batches_of(config: Config, generator: Generator) -> list[Batch]:
    """Makes the calls of part "batch"."""
    graph, parameters = nnx.split(generator.rae)
    found = []
    for size in map(int, SIZES.value):
        sample = dataclasses.replace(config.sample, batch_size=size)
        changed = dataclasses.replace(config, sample=sample)
        latents = sampler(changed, generator, sampler_options(changed), cfg_scale=1.0)
        noise = jax.device_put(random_latents(changed), batch_sharding(generator.mesh))
        decoding = Program(
            lambda noise=noise: decode.lower(graph, parameters, noise).compile(),
            lambda latents=noise: decode(graph, parameters, latents),
        )
        found.append(Batch(size, latents, decoding))
    return found


def measure_batches(config: Config, batches: list[Batch]) -> Iterator[dict[str, Any]]:
    """Times noise to images at several batch sizes."""
    for size, latents, decoding in batches:
        seconds = seconds_of(functools.partial(images_of, latents, decoding))
        yield {
            "batch": size,
            "num_steps": config.sample.num_steps,
            "images_per_second": round(size / seconds, 2),
            "decoding_share": round(seconds_of(decoding.call) / seconds, 4),
        }


def images_of(latents: Program, decoding: Program) -> jax.Array:
    """Queues noise to images."""
    return decoding.call(latents.call())


def loop_images(config: Config, generator: Generator, *, queued: bool) -> np.ndarray:
    """Makes the images of a few batches with the modes' loop, or each batch by itself."""
    settings, size = generation_settings(config), config.sample.batch_size
    labels = [i % config.data.num_classes for i in range(LOOP_BATCHES * size)]
    each = len(labels) if queued else size
    parts = [
        generate(generator, settings, labels[i : i + each], cfg_scale=1.0, first=i)
        for i in range(0, len(labels), each)
    ]
    return np.concatenate([images for part in parts for images in part])


def measure_loop(config: Config, loop: Callable[..., np.ndarray]) -> dict[str, Any]:
    """Times the loop of the modes beside batches that wait for each other."""
    seconds, images = {}, {}
    loop(queued=True)  # what the thread that compiled it did for itself alone
    for queued in (True, False):
        begun = time.perf_counter()
        images[queued] = loop(queued=queued)
        seconds[queued] = time.perf_counter() - begun
    count = len(images[True])
    return {
        "batch": config.sample.batch_size,
        "batches": LOOP_BATCHES,
        "num_steps": config.sample.num_steps,
        "queued_images_per_second": round(count / seconds[True], 2),
        "one_by_one_images_per_second": round(count / seconds[False], 2),
        "equal_bits": bool((images[True] == images[False]).all()),
    }


def sampler(
    config: Config, generator: Generator, options: SamplerOptions, *, cfg_scale: float
) -> Program:
    """Returns the program that makes the latents of a batch."""
    noise = jax.device_put(random_latents(config), batch_sharding(generator.mesh))
    labels = np.arange(len(noise), dtype=np.int32) % config.data.num_classes
    on_devices = jax.device_put(labels, batch_sharding(generator.mesh))
    network = take_apart(generator.ddt)
    if cfg_scale == 1.0:
        options = dataclasses.replace(options, guidance="none")
    inputs = (network, None, noise, on_devices, None, cfg_scale)
    return Program(
        lambda: integrate.lower(*inputs, options=options).compile(),
        lambda: integrate(*inputs, options=options),
    )


if __name__ == "__main__":
    app.run(main)
