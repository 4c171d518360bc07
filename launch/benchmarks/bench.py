r"""Speed of training, encoding, decoding and sampling: one JSON line per measurement.

    python launch/benchmarks/bench.py --config=configs/dit_dino.py --parts=train,sample \
        --config.precision=bf16 --config.data.batch_size=128

Weights are random and images are noise that already lies on the device, so that what is timed is
the computation: the training step is the one that `rae_dit.main` runs. A product of two square
bfloat16 matrices is timed in the same run as the ceiling that the figures stand beside; name it
first, because its five seconds of products warm the device for the parts after it.

`--turn=PATH` compiles all parts at once and then waits for its turn (timing.wait_for_turn), so that
another benchmark compiles at the same time.
"""

import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks import timing
from launch.benchmarks.facts import facts
from launch.benchmarks.timing import Timed
from launch.benchmarks.together import first_calls
from launch.benchmarks.trace_account import account
from rae_dit.config import Config, from_config_dict
from rae_dit.flops import model_flops, train_flops
from rae_dit.planning.compiled import without_files
from rae_dit.sampling.codec import decode, encode
from rae_dit.sampling.latents import initial_noise, sample_latents
from rae_dit.setup import models, weights
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.profile import without_python
from rae_dit.training.sharding import batch_sharding, make_mesh, mesh_context, shard_batch

CONFIG = config_flags.DEFINE_config_file("config", help_string="Config file.")
flags.mark_flag_as_required("config")
PARTS = flags.DEFINE_list(
    "parts", ["ceiling", "train", "encode", "decode", "sample"], "What is measured."
)
WINDOWS = flags.DEFINE_integer("windows", 5, "Timed windows; the median counts.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 10, "Calls per window.", lower_bound=1)
WINDOW_SECONDS = flags.DEFINE_float("window_seconds", 0, "Of a window, in place of `repeats`.")
GUIDANCES = flags.DEFINE_list(
    "guidances", [], "Kinds of guidance to time sampling with; '' = the config's, and none."
)
DECODED = flags.DEFINE_bool("decoded", True, "Time sampling with decoding, too.")
PROFILE = flags.DEFINE_string("profile", "", "Directory for a trace of three training steps.")

TURN = flags.DEFINE_string("turn", "", "Compile at once, make PATH.ready, wait for PATH.go.")

CEILING_SIZE = 8192


def main(_: list[str]) -> None:
    """Prints a line for every part."""
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)), mesh_context(mesh):
        parts = ((part, each) for part in PARTS.value for each in MEASUREMENTS[part](config, mesh))
        firsts: Iterator[float | None] = itertools.repeat(None)
        if TURN.value:
            listed = [*parts]
            calls = [each.compile or each.call for _, each in listed]
            firsts = iter(first_calls(config, mesh, calls))
            timing.wait_for_turn(TURN.value)
            parts = iter(listed)
        for part, each in parts:
            each.before()
            seconds, first = median_seconds(each.call, each.repeats), next(firsts)
            line = each.describe(seconds if first is None else (first, seconds[1]))
            print(json.dumps({"part": part} | line | facts(config)), flush=True)


def median_seconds(call: Callable[[], Any], repeats: int | None = None) -> tuple[float, float]:
    """Returns the seconds of the first call and of one in the median window, by the flags."""
    return timing.median_seconds(
        call,
        jax.block_until_ready,
        windows=WINDOWS.value,
        repeats=repeats or REPEATS.value,
        window_seconds=0 if repeats else WINDOW_SECONDS.value,
    )


def rates(seconds: tuple[float, float], images: int, flops_per_image: float) -> dict[str, float]:
    """Returns milliseconds, images/s and TFLOP/s of a part that takes `images` images a call."""
    return timing.rates(seconds, images, flops_per_image / 1e12, jax.device_count())


def measure_ceiling(config: Config, mesh: jax.sharding.Mesh) -> Iterator[Timed]:
    """Times a product of square bfloat16 matrices on one device, cold and warm.

    A large GPU holds its highest clock for a moment only: after seconds of matrix products its
    power limit sets the pace, and that is the ceiling of a run that goes on for days.
    """
    del config, mesh
    left, right = jax.random.normal(jax.random.key(0), (2, CEILING_SIZE, CEILING_SIZE), "bfloat16")
    product = jax.jit(lambda a, b: a @ b)

    def call() -> jax.Array:
        return product(left, right)

    def describe(state: str, seconds: tuple[float, float]) -> dict[str, Any]:
        tflops = 2e-12 * CEILING_SIZE**3 / seconds[1]
        return {"state": state, "ms": round(1e3 * seconds[1], 3), "tflops": round(tflops, 1)}

    heat = functools.partial(timing.heat, call, jax.block_until_ready, timing.WARM_SECONDS)
    yield Timed(call, functools.partial(describe, "cold"), repeats=10)
    yield Timed(call, functools.partial(describe, "warm"), heat, repeats=10)


def measure_train(config: Config, mesh: jax.sharding.Mesh) -> Iterator[Timed]:
    """Times the step of `rae_dit.main`: encode, loss, backward, clip, AdamW and EMA."""
    program = make_program(config, mesh)
    frozen = make_task(config).load_frozen(mesh)
    state = program.create()
    batch = shard_batch(random_images(config), mesh)

    def step() -> Any:
        nonlocal state
        state, metrics = program.step(state, frozen, batch)
        return metrics

    def describe(seconds: tuple[float, float]) -> dict[str, Any]:
        line = rates(seconds, config.data.batch_size, train_flops(make_task(config).work))
        return line | (account_of(step) if PROFILE.value else {})

    def compiled() -> None:
        program.step.lower(program.abstract, frozen, batch).compile()

    yield Timed(step, describe, compile=compiled)


def account_of(step: Callable[[], Any]) -> dict[str, Any]:
    """Traces three steps; returns the milliseconds of each kind of kernel in one."""
    with jax.profiler.trace(PROFILE.value, profiler_options=without_python()):
        for _ in range(3):
            metrics = step()
        jax.block_until_ready(metrics)
    traces = Path(PROFILE.value).rglob("*.xplane.pb")
    newest = max(traces, key=lambda path: path.stat().st_mtime)
    found = account(newest, steps=3 * jax.device_count())
    return {"ms_a_step": {kind: round(ms, 2) for kind, (ms, _, _) in [*found.items()][:8]}}


def measure_encode(config: Config, mesh: jax.sharding.Mesh) -> Iterator[Timed]:
    """Times images to latents."""
    graph, parameters = weights.place_rae(config, mesh, decoder=False)
    image = shard_batch(random_images(config), mesh)["image"]
    flops = model_flops(config).encoder
    yield Timed(
        lambda: encode(graph, parameters, image),
        lambda seconds: rates(seconds, config.data.batch_size, flops),
    )


def measure_decode(config: Config, mesh: jax.sharding.Mesh) -> Iterator[Timed]:
    """Times latents to images."""
    graph, parameters = weights.place_rae(config, mesh, decoder=True)
    latents = jax.device_put(random_latents(config), batch_sharding(mesh))
    flops = model_flops(config).decoder
    yield Timed(
        lambda: decode(graph, parameters, latents),
        lambda seconds: rates(seconds, config.sample.batch_size, flops),
    )


def measure_sample(config: Config, mesh: jax.sharding.Mesh) -> Iterator[Timed]:
    """Times noise to latents, and on to images, with every kind of guidance that is asked for."""
    ddt = nnx.merge(*weights.initialize(models.make_ddt, config, mesh))
    rae = weights.place_rae(config, mesh, decoder=True) if DECODED.value else None
    noise = jax.device_put(random_latents(config), batch_sharding(mesh))
    labels = jax.device_put(np.arange(len(noise), dtype=np.int32) % config.data.num_classes)
    updates = config.sample.num_steps - (config.sample.grid == "official")

    one_a_window = 1 if WINDOW_SECONDS.value else None  # it takes seconds

    def described(facts: dict[str, Any], flops: float) -> Callable[..., dict[str, Any]]:
        return lambda seconds: facts | rates(seconds, len(noise), flops)

    for kind in GUIDANCES.value or ["none", config.sample.guidance]:
        evaluations = updates * (1 if kind in ("none", "internal") else 2)
        cfg_scale = 1.0 if kind == "none" else 1.5
        sample = functools.partial(
            sample_latents,
            ddt,
            noise,
            labels,
            steps=config.sample.num_steps,
            shift=models.latent_shift(config),
            cfg_scale=cfg_scale,
            guidance="cfg" if kind == "none" else kind,
            grid=config.sample.grid,
            precision=config.sample.precision,
        )
        flops = evaluations * model_flops(config).ddt
        guided = {"guidance": kind, "cfg_scale": cfg_scale}
        yield Timed(sample, described(guided | {"decoded": False}, flops), repeats=one_a_window)
        if rae is not None:
            yield Timed(
                lambda rae=rae, sample=sample: decode(*rae, sample()),
                described(guided | {"decoded": True}, flops + model_flops(config).decoder),
                repeats=one_a_window,
            )


MEASUREMENTS = {
    "ceiling": measure_ceiling,
    "train": measure_train,
    "encode": measure_encode,
    "decode": measure_decode,
    "sample": measure_sample,
}


def random_images(config: Config) -> dict[str, np.ndarray]:
    """Returns a batch of noise: uint8 [B,H,W,3] and int32 labels."""
    generator = np.random.default_rng(0)
    size, count = config.data.image_size, config.data.batch_size
    return {
        "image": generator.integers(0, 256, (count, size, size, 3), np.uint8),
        "label": generator.integers(0, config.data.num_classes, count, np.int32),
    }


def random_latents(config: Config) -> jnp.ndarray:
    """Returns normal noise in the shape of `sample.batch_size` latents."""
    grid = models.latent_grid(config)
    shape = (grid, grid, config.encoder.hidden_size)
    return initial_noise(jax.random.key(0), jnp.arange(config.sample.batch_size), shape)


if __name__ == "__main__":
    app.run(main)
