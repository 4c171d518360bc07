r"""Speed of few-step training and sampling beside flow matching, on one device: JSON lines.

    python launch/benchmarks/bench_few_steps.py --batch=128 --sample_batches=64,256

Weights are random and inputs noise, both on the device already. All programs are compiled first,
some at once, and timed afterwards:

    train     a step of configs/dit_dino.py and one of configs/few_distil_dino.py, both complete:
              encoder, teacher, loss, derivative, backward pass, clip, AdamW, EMA; bytes are the
              compiler's: arguments and temporaries
    sample    decoded images: 1, 2 and 4 jumps, and 50 points with CFG
    attention forward mode of attention at 256 and 1,024 tokens, beside the plain pass and cuDNN's
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs import dit_dino, few_distil_dino
from rae_dit import compiler
from rae_dit.config import Config, from_config_dict
from rae_dit.models.attention import dot_product_attention
from rae_dit.planning.compiled import without_files
from rae_dit.sampling.codec import decode
from rae_dit.sampling.latents import integrate
from rae_dit.sampling.velocity import Network
from rae_dit.setup import models, weights
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.setup.sampling import sampler_options
from rae_dit.training.sharding import make_mesh, mesh_context, shard_batch

GIB = 2**30


class Measurement(NamedTuple):
    """A compiled program and how it is timed.

    Attributes:
        facts: of the JSON line.
        images: that a call makes or trains on.
        compile: gives the compiled program.
        call: (compiled, previous result) -> result.
        start: the first previous result.
    """

    facts: dict[str, Any]
    images: int
    compile: Callable[[], Any]
    call: Callable[[Any, Any], Any]
    start: Callable[[], Any] = lambda: None


def main() -> None:
    """Prints a line for every measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images of a training step")
    parser.add_argument("--sample_batches", default="64,256")
    parser.add_argument("--cfg_batches", default="64", help="for 50 points with CFG")
    parser.add_argument("--parts", default="train,sample,attention")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--scan", action="store_true", help="scanned layers: compiles sooner")
    parser.add_argument("--threads", type=int, default=4, help="programs compiled at once")
    parser.add_argument("--repeats", type=int, default=5, help="calls a window; three windows")
    parser.add_argument("--tiny", action="store_true", help="a network of digits' size")
    arguments = parser.parse_args()
    flow, few = (config_of(module, arguments) for module in (dit_dino, few_distil_dino))
    mesh = make_mesh(1, jax.devices()[:1])
    with jax.default_matmul_precision(models.matmul_precision(flow)), mesh_context(mesh):
        found: list[Measurement] = []
        parts = arguments.parts.split(",")
        if "train" in parts:
            found += [training("flow matching", flow, mesh), training("distillation", few, mesh)]
        if "sample" in parts:
            found += [*sampling(flow, few, mesh, arguments)]
        if "attention" in parts:
            found += [*attention(flow, arguments.batch)]
        with concurrent.futures.ThreadPoolExecutor(arguments.threads) as pool:
            compiled = [pool.submit(compile_in, flow, mesh, one.compile) for one in found]
            concurrent.futures.wait(compiled)  # compiling disturbs what is timed
            for measurement, program in zip(found, compiled, strict=True):
                line = measure(measurement, program.result, arguments.repeats)
                print(json.dumps(line | shared_facts(flow, arguments)), flush=True)


def config_of(module: Any, arguments: argparse.Namespace) -> Config:
    """Returns a config with random weights, for one device."""
    values = module.get_config()
    values.precision = arguments.precision
    values.data.source = "synthetic"
    values.data.batch_size = arguments.batch
    values.compute.scan_layers = arguments.scan
    if arguments.tiny:
        values.ddt.hidden_size, values.ddt.depth, values.ddt.num_heads = (64, 64), (2, 1), (2, 2)
        values.encoder.depth, values.decoder.depth = 1, 1
    return without_files(from_config_dict(values))


def compile_in(config: Config, mesh: jax.sharding.Mesh, make: Callable[[], Any]) -> Any:
    """Compiles in a thread, which does not inherit the settings of the main one."""
    with jax.default_matmul_precision(models.matmul_precision(config)), mesh_context(mesh):
        started = time.perf_counter()
        return make(), time.perf_counter() - started


def measure(measurement: Measurement, wait: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Times the median of three windows of calls, after one call."""
    try:
        program, seconds = wait()
        result = jax.block_until_ready(measurement.call(program, measurement.start()))
        windows = []
        for _ in range(3):
            started = time.perf_counter()
            for _ in range(repeats):
                result = measurement.call(program, result)
            jax.block_until_ready(result)
            windows.append((time.perf_counter() - started) / repeats)
    except Exception as error:  # the other lines count
        return measurement.facts | {"error": " ".join(str(error).split())[:200]}
    median = statistics.median(windows)
    memory = program.memory_analysis()
    return measurement.facts | {
        "batch": measurement.images,
        "ms": round(1e3 * median, 2),
        "images_per_second": round(measurement.images / median, 2),
        "argument_gib": round(memory.argument_size_in_bytes / GIB, 2),
        "temporary_gib": round(memory.temp_size_in_bytes / GIB, 2),
        "compile_seconds": round(seconds, 1),
    }


def shared_facts(config: Config, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what a figure depends on."""
    return {
        "precision": config.precision,
        "scan_layers": config.compute.scan_layers,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "tiny": arguments.tiny,
    }


def training(name: str, config: Config, mesh: jax.sharding.Mesh) -> Measurement:
    """Measures a training step; the state is made when it is timed, and donated."""
    program, task = make_program(config, mesh), make_task(config)
    frozen = task.load_frozen(mesh)
    generator, size = np.random.default_rng(0), config.data.image_size
    images = generator.integers(0, 256, (config.data.batch_size, size, size, 3), np.uint8)
    labels = generator.integers(0, config.data.num_classes, len(images), np.int32)
    batch = shard_batch({"image": images, "label": labels}, mesh)
    return Measurement(
        {"part": "train", "objective": name},
        config.data.batch_size,
        lambda: program.step.lower(program.abstract, frozen, batch).compile(),
        lambda step, result: step(result[0], frozen, batch),
        lambda: (program.create(), None),
    )


def sampling(
    flow: Config, few: Config, mesh: jax.sharding.Mesh, arguments: argparse.Namespace
) -> Iterator[Measurement]:
    """Measures noise to images: jumps of a network with two times, and 50 points with CFG."""
    rae = weights.place_rae(flow, mesh, decoder=True)
    student, network = (weights.initialize(models.make_ddt, config, mesh) for config in (few, flow))
    for ddt, config, steps, sizes in (
        *((student, few, steps, arguments.sample_batches) for steps in (1, 2, 4)),
        (network, flow, 50, arguments.cfg_batches),
    ):
        options = dataclasses.replace(sampler_options(config), steps=steps)
        for size in map(int, sizes.split(",")):
            yield sampler(ddt, rae, options, config, size)


def sampler(
    ddt: weights.Model, rae: weights.Model, options: Any, config: Config, size: int
) -> Measurement:
    """Measures one sampler and the decoder behind it, as one program with the options of each."""
    grid = models.latent_grid(config)
    shape = (size, grid, grid, config.encoder.hidden_size)
    noise, labels = jax.random.normal(jax.random.key(0), shape), jnp.arange(size) % 10
    jumps = options.method == "mean_flow"

    def images(ddt_parameters: Any, rae_parameters: Any, noise: Any, labels: Any) -> Any:
        latents = inspect.unwrap(integrate)(
            *(Network(ddt.graph, ddt_parameters), None, noise, labels, None),
            1.0 if jumps else 1.5,
            options=options,
        )
        return inspect.unwrap(decode)(rae.graph, rae_parameters, latents)

    operands = (nnx.State(ddt.parameters), rae.parameters, noise, labels)
    return Measurement(
        {"part": "sample", "method": f"{options.steps} {'jumps' if jumps else 'points, CFG'}"},
        size,
        lambda: (
            jax.jit(images, compiler_options=compiler.OPTIONS.get(jax.default_backend()))
            .lower(*operands)
            .compile()
        ),
        lambda program, _: program(*operands),
    )


def attention(config: Config, batch: int) -> Iterator[Measurement]:
    """Measures attention alone, of the backbone's heads: plain, and with its tangent."""
    heads = config.ddt.num_heads[0]
    width = config.ddt.hidden_size[0] // heads
    dtype = jnp.bfloat16 if config.precision == "bf16" else jnp.float32
    for tokens in (256, 1024):
        shape = (batch // 4, tokens, heads, width)
        q, k, v = (
            jax.random.normal(key, shape, dtype) for key in jax.random.split(jax.random.key(0), 3)
        )
        for kind in ("xla", "xla forward mode", "cudnn", "cudnn forward mode"):
            implementation, _, tangent = kind.partition(" ")
            plain = functools.partial(dot_product_attention, implementation=implementation)

            def with_tangent(*x: Any, plain: Any = plain) -> Any:
                return jax.jvp(plain, x, x)

            function = with_tangent if tangent else plain
            yield Measurement(
                {"part": "attention", "kind": kind, "tokens": tokens},
                batch // 4,
                lambda function=function, x=(q, k, v): jax.jit(function).lower(*x).compile(),
                lambda program, _, x=(q, k, v): program(*x),
            )


if __name__ == "__main__":
    main()
