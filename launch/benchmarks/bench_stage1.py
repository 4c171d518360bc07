r"""Cost of the parts of a stage-1 step: one JSON line per configuration.

    python launch/benchmarks/bench_stage1.py --config=configs/rae_dino.py --config.precision=bf16 \
        --config.data.batch_size=32

Weights are random. Lines, each a step of `rae_dit.main` that does more than the one before:
"draw" encodes and adds noise; "l1" trains the decoder on L1 alone, "lpips" on LPIPS besides; of
"gan", one program, "waiting" does not use the discriminator yet, "judging" trains it, "both" has
the decoder's adversarial term as well. A part's cost is the difference of two lines. `peak_gib` is
the most since the process began, which grows with the lines; all three of "gan" are one program.

`--at_once` compiles all programs at the same time, each on a core of its own, and then times them:
half the time on a machine that is lent.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from bench import CONFIG, TURN, facts, median_seconds, random_images

from launch.benchmarks import timing
from launch.benchmarks.together import at_once
from rae_dit.config import Config, from_config_dict
from rae_dit.planning.compiled import without_files
from rae_dit.setup import models
from rae_dit.setup.objectives import make_task
from rae_dit.setup.run import make_program
from rae_dit.training.sharding import make_mesh, shard_batch

AT_ONCE = flags.DEFINE_bool("at_once", False, "Compile all programs at the same time.")


class Part(NamedTuple):
    """A program to time.

    Attributes:
        name: of the part.
        compile: compiles the program without running it; JAX keeps what it made.
        call: takes one step of the given number and returns its metrics.
        phases: of the part, and a step number of each.
    """

    name: str
    compile: Callable[[], object]
    call: Callable[[int], Any]
    phases: dict[str, int]


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
    makers = [
        functools.partial(drawing, plain, mesh, batch),
        functools.partial(steps, "l1", plain, mesh, batch, {"": 0}),
    ]
    if config.perceptual.weight:
        changed = dataclasses.replace(plain, perceptual=config.perceptual)
        makers.append(functools.partial(steps, "lpips", changed, mesh, batch, {"": 0}))
    phases = {"waiting": 0, "judging": 1, "both": 2}
    makers.append(functools.partial(steps, "gan", config, mesh, batch, phases))
    made: Iterator[Part] = (make() for make in makers)
    if AT_ONCE.value:
        parts = list(made)
        at_once(config, mesh, [part.compile for part in parts])
        made = iter(parts)
    timing.wait_for_turn(TURN.value)
    for part in made:
        for phase, number in part.phases.items():
            seconds = median_seconds(functools.partial(part.call, number))
            yield line(f"{part.name} {phase}".strip(), config, seconds)
        if not jnp.isfinite(part.call(0)).all():
            raise RuntimeError(f"{part.name}: not finite; these times mean nothing")


def drawing(config: Config, mesh: jax.sharding.Mesh, batch: Any) -> Part:
    """Makes the part that encodes and adds noise."""
    frozen = make_task(config).load_frozen(mesh)
    sample_inputs = jax.jit(make_task(config).objective.sample_inputs)
    return Part(
        "draw",
        lambda: sample_inputs.lower(frozen, batch, jax.random.key(0)).compile(),
        lambda number: sample_inputs(frozen, batch, jax.random.key(number))["tokens"],
        {"": 0},
    )


def steps(
    name: str, config: Config, mesh: jax.sharding.Mesh, batch: Any, phases: dict[str, int]
) -> Part:
    """Makes a part that takes steps, at the given step numbers; its call returns the loss."""
    program = make_program(config, mesh)
    frozen = make_task(config).load_frozen(mesh)
    state: Any = None

    def take(number: int) -> jax.Array:
        nonlocal state
        state = state or program.create()  # not before: other parts have states, too
        held = jax.device_put(jnp.int32(number), state.step.sharding)
        state, metrics = program.step(dataclasses.replace(state, step=held), frozen, batch)
        return jnp.where(metrics["skipped"] > 0, jnp.nan, metrics["loss"])

    return Part(
        name,
        lambda: program.step.lower(program.abstract, frozen, batch).compile(),
        take,
        phases,
    )


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
