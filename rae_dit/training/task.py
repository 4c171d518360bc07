"""A task: everything that depends on which objective a run has, in one record.

`setup/objectives.make_task` makes it from a config, by the one `match` on the objective's name.
Loop, program, hooks and planning use the task and never the name.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from rae_dit.data.sources import Source
from rae_dit.flops import Work
from rae_dit.objectives.base import Objective, Tree
from rae_dit.training.hook import Hook
from rae_dit.training.state import DiscriminatorState, TrainState

Step = Callable[[TrainState, Tree, Tree], tuple[TrainState, Tree]]
"""(state, frozen, batch) -> (state, metrics)."""


ImageHooks = Callable[[Mesh, Tree, Source | None, Path, Callable[[], None]], Sequence[Hook]]
"""(mesh, frozen, held-out records, workdir, what to call after each batch) -> hooks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The trained network of a run, its step, its frozen networks and its hooks.

    Attributes:
        objective: of training.
        validation: the same for held-out images, without augmentation of any kind.
        create: makes the trained network with initial weights.
        module: the trained network with shapes in place of arrays.
        optimizer: of the trained network.
        schedule: its learning rate by the optimizer step.
        step: advances the state by one step.
        work: matrix products of a step for one image.
        load_frozen: loads the networks that are used and not trained.
        load_initial: loads weights of another run or of a file to start from; None for initial
            ones.
        create_discriminator: makes the state of a discriminator that is trained besides; None for
            none.
        telemetry: (params, frozen, batch, key) -> scalars, measured when a step is logged; None
            for none.
        attention_shape: tokens that the trained network attends over, and channels of a head, for
            the log; None where they do not matter.
        make_image_hooks: loads what images are made with, and makes hooks that draw and evaluate
            images of the EMA.
    """

    objective: Objective
    validation: Objective
    create: Callable[[nnx.Rngs], nnx.Module]
    module: nnx.Module
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    step: Step
    work: Work
    load_frozen: Callable[[Mesh], Tree]
    load_initial: Callable[[Mesh], Tree | None] = lambda mesh: None
    create_discriminator: Callable[[], DiscriminatorState] | None = None
    telemetry: Callable[[Tree, Tree, Tree, Key[Array, ""]], dict[str, Any]] | None = None
    attention_shape: tuple[int, int] | None = None
    make_image_hooks: ImageHooks = lambda mesh, frozen, validation, workdir, after_batch: ()
