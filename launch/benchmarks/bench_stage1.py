r"""Cost of the parts of a stage-1 step: one JSON line per configuration.

    python launch/benchmarks/bench_stage1.py --config=configs/rae_dino.py --config.precision=bf16 \
        --config.data.batch_size=32

Weights are random. Lines, each a step of `rae_dit.main` that does more than the one before:
"draw" encodes and adds noise; "l1" trains the decoder on L1 alone, "lpips" on LPIPS besides; of
"gan", one program, "waiting" does not use the discriminator yet, "judging" trains it, "both" has
the decoder's adversarial term as well. A part's cost is the difference of two lines. `peak_gib` is
the most since the process began, which grows with the lines; all three of "gan" are one program.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import app
from bench import CONFIG, facts, median_seconds, random_images

from rae_dit.config import Config, from_config_dict
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch


def main(_: list[str]) -> None:
    """Prints a line for every configuration."""
    config = with_random_weights(from_config_dict(CONFIG.value))
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)), jax.set_mesh(mesh):
        for line in measurements(config, mesh):
            print(json.dumps(line | facts(config)), flush=True)


def with_random_weights(config: Config) -> Config:
    """Removes all files; starts the discriminator at step 1, its term at step 2."""
    return dataclasses.replace(
        without_files(config),
        perceptual=dataclasses.replace(config.perceptual, vgg="", linear="", start=0),
        gan=dataclasses.replace(config.gan, discriminator_start=1, start=2),
        discriminator=dataclasses.replace(config.discriminator, pretrained=""),
    )


def measurements(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Yields all lines, from the step that does least."""
    batch = shard_batch(random_images(config), mesh)
    plain = dataclasses.replace(
        config,
        perceptual=dataclasses.replace(config.perceptual, weight=0.0),
        gan=dataclasses.replace(config.gan, weight=0.0),
    )
    frozen = make_task(plain).load_frozen(mesh)
    sample_inputs = jax.jit(make_task(plain).objective.sample_inputs)
    key = jax.random.key(0)
    yield line("draw", config, median_seconds(lambda: sample_inputs(frozen, batch, key)))
    yield from steps("l1", plain, mesh, batch, {"": 0})
    if config.perceptual.weight:
        changed = dataclasses.replace(plain, perceptual=config.perceptual)
        yield from steps("lpips", changed, mesh, batch, {"": 0})
    yield from steps("gan", config, mesh, batch, {"waiting": 0, "judging": 1, "both": 2})


def steps(
    part: str, config: Config, mesh: jax.sharding.Mesh, batch: Any, phases: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Times one compiled step at each of the given step numbers."""
    program = make_program(config, mesh)
    frozen = make_task(config).load_frozen(mesh)
    state = program.create()

    def take(number: int) -> Any:
        nonlocal state
        held = jax.device_put(jnp.int32(number), state.step.sharding)
        state, metrics = program.step(dataclasses.replace(state, step=held), frozen, batch)
        return metrics

    for phase, number in phases.items():
        seconds = median_seconds(lambda number=number: take(number))
        yield line(f"{part} {phase}".strip(), config, seconds)
    if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)):
        raise RuntimeError(f"{part}: the parameters are not finite; these times mean nothing")


def line(part: str, config: Config, seconds: tuple[float, float]) -> dict[str, Any]:
    """Returns the printed line of one configuration."""
    first, median = seconds
    return {
        "part": part,
        "batch": config.data.batch_size,
        "ms": round(1e3 * median, 2),
        "images_per_second": round(config.data.batch_size / median, 2),
        "first_call_seconds": round(first, 1),
    }


if __name__ == "__main__":
    app.run(main)
