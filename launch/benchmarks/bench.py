r"""Speed of training, encoding, decoding and sampling: one JSON line per measurement.

    python launch/benchmarks/bench.py --config=configs/dit_dino.py --parts=train,sample \
        --config.precision=bf16 --config.data.batch_size=128

Weights are random and images are noise that already lies on the device, so that what is timed is
the computation: the training step is the one that `rae_dit.main` runs. A product of two square
bfloat16 matrices is timed in the same run as the ceiling that the figures stand beside.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import time
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
from rae_dit.training.sharding import batch_sharding, make_mesh, shard_batch

CONFIG = config_flags.DEFINE_config_file("config", help_string="Config file.")
flags.mark_flag_as_required("config")
PARTS = flags.DEFINE_list(
    "parts", ["ceiling", "train", "encode", "decode", "sample"], "What is measured."
)
WINDOWS = flags.DEFINE_integer("windows", 5, "Timed windows; the median counts.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 10, "Calls per window.", lower_bound=1)
GUIDANCES = flags.DEFINE_list(
    "guidances", [], "Kinds of guidance to time sampling with; '' = the config's, and none."
)
DECODED = flags.DEFINE_bool("decoded", True, "Time sampling with decoding, too.")
PROFILE = flags.DEFINE_string("profile", "", "Directory for a trace of three training steps.")

CEILING_SIZE = 8192
WARM_SECONDS = 5


def main(_: list[str]) -> None:
    """Prints a line for every part."""
    config = without_files(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)), jax.set_mesh(mesh):
        for part in PARTS.value:
            for line in MEASUREMENTS[part](config, mesh):
                print(json.dumps({"part": part} | line | facts(config)), flush=True)


def facts(config: Config) -> dict[str, Any]:
    """Returns what a figure depends on: precision, device, versions, commit, date, memory."""
    return {
        "precision": config.precision,
        "sample_precision": config.sample.precision,
        "compute": dataclasses.asdict(config.compute),
        "fsdp": config.sharding.fsdp,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "peak_gib": round(peak_bytes() / 2**30, 2),
    }


def commit() -> str:
    """Returns the commit's short name, with '+' if files differ; '' outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_bytes() -> int:
    """Returns the process's peak device memory in bytes; 0 where the device does not report it."""
    return int((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def median_seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """Returns the seconds of the first call and of one in the median window, by the flags."""
    return timing.median_seconds(
        call, jax.block_until_ready, windows=WINDOWS.value, repeats=REPEATS.value
    )


def rates(seconds: tuple[float, float], images: int, flops_per_image: float) -> dict[str, float]:
    """Returns milliseconds, images/s and TFLOP/s of a part that takes `images` images a call."""
    return timing.rates(seconds, images, flops_per_image / 1e12, jax.device_count())


def measure_ceiling(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Times a product of square bfloat16 matrices on one device, cold and warm.

    A large GPU holds its highest clock for a moment only: after seconds of matrix products its
    power limit sets the pace, and that is the ceiling of a run that goes on for days.
    """
    del config, mesh
    left, right = jax.random.normal(jax.random.key(0), (2, CEILING_SIZE, CEILING_SIZE), "bfloat16")
    product = jax.jit(lambda a, b: a @ b)
    for state in ("cold", "warm"):
        _, seconds = median_seconds(lambda: product(left, right))
        tflops = 2e-12 * CEILING_SIZE**3 / seconds
        yield {"state": state, "ms": round(1e3 * seconds, 3), "tflops": round(tflops, 1)}
        end = time.monotonic() + WARM_SECONDS
        while state == "cold" and time.monotonic() < end:
            jax.block_until_ready([product(left, right) for _ in range(100)])


def measure_train(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Times the step of `rae_dit.main`: encode, loss, backward, clip, AdamW and EMA."""
    program = make_program(config, mesh)
    frozen = make_task(config).load_frozen(mesh)
    state = program.create()
    batch = shard_batch(random_images(config), mesh)

    def step() -> Any:
        nonlocal state
        state, metrics = program.step(state, frozen, batch)
        return metrics

    images = config.data.batch_size
    yield rates(median_seconds(step), images, train_flops(make_task(config).work))
    if PROFILE.value:
        with jax.profiler.trace(PROFILE.value, profiler_options=without_python()):
            for _ in range(3):
                metrics = step()
            jax.block_until_ready(metrics)
        traces = Path(PROFILE.value).rglob("*.xplane.pb")
        newest = max(traces, key=lambda path: path.stat().st_mtime)
        found = account(newest, steps=3 * jax.device_count())
        yield {
            "part": "account",
            "ms_a_step": {kind: round(ms, 2) for kind, (ms, _, _) in [*found.items()][:8]},
        }


def measure_encode(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Times images to latents."""
    graph, parameters = weights.place_rae(config, mesh, decoder=False)
    image = shard_batch(random_images(config), mesh)["image"]
    seconds = median_seconds(lambda: encode(graph, parameters, image))
    yield rates(seconds, config.data.batch_size, model_flops(config).encoder)


def measure_decode(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Times latents to images."""
    graph, parameters = weights.place_rae(config, mesh, decoder=True)
    latents = jax.device_put(random_latents(config), batch_sharding(mesh))
    seconds = median_seconds(lambda: decode(graph, parameters, latents))
    yield rates(seconds, config.sample.batch_size, model_flops(config).decoder)


def measure_sample(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Times noise to latents, and on to images, with every kind of guidance that is asked for."""
    ddt = nnx.merge(*weights.initialize(models.make_ddt, config, mesh))
    rae = weights.place_rae(config, mesh, decoder=True)
    noise = jax.device_put(random_latents(config), batch_sharding(mesh))
    labels = jax.device_put(np.arange(len(noise), dtype=np.int32) % config.data.num_classes)
    updates = config.sample.num_steps - (config.sample.grid == "official")
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
        line = rates(median_seconds(sample), len(noise), flops)
        guided = {"guidance": kind, "cfg_scale": cfg_scale}
        yield guided | {"decoded": False} | line
        if not DECODED.value:
            continue
        seconds = median_seconds(lambda sample=sample: decode(*rae, sample()))
        line = rates(seconds, len(noise), flops + model_flops(config).decoder)
        yield guided | {"decoded": True} | line


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
