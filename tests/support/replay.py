"""Recorded training steps of a reference, replayed through the step that our runs take.

A reference's draws (noise, times, dropped labels) go where `Objective.sample_inputs` would put
ours; loss, gradient, clip, optimizer, schedule and EMA are those of a run with the same config. So
no random numbers have to agree. A recipe needs its recording and a `Start`: support/trajectories.py
has those of bytetriper/RAE.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rae_dit.objectives.base import Tree
from rae_dit.training.program import Program, build_program
from rae_dit.training.sharding import make_mesh
from rae_dit.training.state import DiscriminatorState, TrainState
from rae_dit.training.task import Task
from support.small_run import host

Named = dict[str, np.ndarray]


class Recording(NamedTuple):
    """What a reference drew and computed (golden/make_trajectories.py).

    Attributes:
        settings: of the reference's run.
        arrays: draws and scalars, with an axis of steps in front.
        changes: "change_K" or "ema_change_K" -> parameter -> its change in K steps.
    """

    settings: dict[str, Any]
    arrays: Named
    changes: dict[str, Named]


class Start(NamedTuple):
    """Our side before the first step.

    Attributes:
        task: of a config with the reference's settings.
        params: of the trained network.
        frozen: networks that are used and not trained.
        inputs: the objective's inputs, one tree for each step.
        names: (params, discriminator or None) -> parameters by the recording's names and layouts.
        discriminator: of a step that trains one.
    """

    task: Task
    params: Tree
    frozen: Tree
    inputs: list[Tree]
    names: Callable[[Tree, DiscriminatorState | None], Named]
    discriminator: DiscriminatorState | None = None


class Step(NamedTuple):
    """Where our run is after a step, on the host."""

    state: TrainState
    metrics: dict[str, float]


def read_recording(directory: Path, name: str) -> Recording:
    """Reads a recording; draws that it shares with another one come from there."""
    settings = json.loads((directory / f"{name}.json").read_text())
    arrays: Named = {}
    changes: dict[str, Named] = {}
    shared = Path(settings.get("inputs") or f"{name}.npz").stem
    for file in dict.fromkeys((shared, name)):
        with np.load(directory / f"{file}.npz") as content:
            for key in content.files:
                kind, _, parameter = key.partition("/")
                if not parameter:
                    arrays[key] = content[key]
                elif file == name:
                    changes.setdefault(kind, {})[parameter] = content[key]
    return Recording(settings, arrays, changes)


def taking_inputs(task: Task) -> Task:
    """Makes the step of a task take the objective's inputs from its batch."""
    objective = task.objective._replace(sample_inputs=lambda frozen, batch, key: batch["inputs"])
    step = functools.partial(task.step, objective=objective)
    return dataclasses.replace(task, objective=objective, step=step)


def compiled(start: Start) -> Program:
    """Builds the program whose step takes recorded inputs."""
    mesh = make_mesh(1, jax.devices()[:1])
    return build_program(taking_inputs(start.task), mesh, seed=0)


def replay(start: Start, program: Program | None = None) -> list[Step]:
    """Takes the recorded steps.

    Args:
        start: our side.
        program: of `compiled`, to use it for more than one replay.

    Returns:
        The start, without metrics, and where each step leads.
    """
    program = program or compiled(start)
    state = TrainState(
        step=jnp.int32(0),
        params=start.params,
        ema=start.params,
        opt_state=start.task.optimizer.init(start.params),
        key=jax.random.key(0),
        bad_steps=jnp.int32(0),
        last_good_step=jnp.int32(0),
        discriminator=start.discriminator,
    )
    # Placed as the step returns it, so that its first call compiles for the others as well; a copy,
    # because the step donates it.
    shardings = jax.tree.map(lambda leaf: leaf.sharding, program.abstract)
    state = jax.device_put(jax.tree.map(jnp.copy, state), shardings)
    steps = [Step(host(state), {})]
    no_images = np.zeros((0, 1, 1, 3), np.uint8)
    for inputs in start.inputs:
        batch = {"image": no_images, "inputs": inputs}
        state, metrics = program.step(state, start.frozen, batch)
        steps.append(Step(host(state), {name: float(value) for name, value in metrics.items()}))
    return steps


def distance(ours: Named, before: Named, change: Named) -> float:
    """|ours - theirs| / |theirs - start| over all tensors of a recording together."""
    off = sum(
        np.sum(np.square(np.float64(ours[name]) - before[name] - change[name])) for name in change
    )
    return float(np.sqrt(off / sum(np.sum(np.square(np.float64(c))) for c in change.values())))


def distances(start: Start, steps: list[Step], recording: Recording) -> dict[str, float]:
    """Measures each part of each recorded state: {"change_4/decoder": distance}.

    A part is what precedes the first slash of the names ("" without one): networks apart, since
    each has its own optimizer. Vectors of spectral norms are no parameters and a part of their own.
    """
    before = start.names(steps[0].state.params, steps[0].state.discriminator)
    found = {}
    for kind, change in recording.changes.items():
        state = steps[int(kind.rpartition("_")[2])].state
        ours = start.names(
            state.ema if kind.startswith("ema") else state.params, state.discriminator
        )
        parts: dict[str, Named] = {}
        for name, value in change.items():
            parts.setdefault(part_of(name), {})[name] = value
        for part, values in parts.items():
            found[f"{kind}/{part}".rstrip("/")] = distance(ours, before, values)
    return found


def part_of(name: str) -> str:
    """Returns "heads" for "heads/0.1.bias", "" for "blocks.0.bias"; see `distances`."""
    part = name.rpartition("/")[0]
    return f"{part}/vectors" if name.endswith(("weight_u", "weight_v")) else part


def errors(steps: list[Step], recording: Recording) -> dict[str, float]:
    """Measures every scalar that both have, by name: its largest relative error of the steps."""
    found = {}
    for name in steps[1].metrics.keys() & recording.arrays.keys():
        values = np.array([step.metrics[name] for step in steps[1:]])
        expected = recording.arrays[name][: len(values)]
        found[name] = float(np.max(np.abs(values / expected - 1)))
    return found
