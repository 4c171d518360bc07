"""Config -> objectives of a DiT^DH with two times, and the step that counts for them."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from rae_dit.config import Config
from rae_dit.diffusion.time_grid import time_grid
from rae_dit.objectives.base import Objective, Tree
from rae_dit.objectives.mean_flow import mean_flow
from rae_dit.objectives.teacher import Teacher
from rae_dit.objectives.trajectory import trajectory
from rae_dit.setup import models
from rae_dit.training.state import TrainState
from rae_dit.training.task import Step

MakeObjective = Callable[..., Objective]
"""(class_dropout, training=False) -> objective; of training, it knows micro-batches and warm-up."""


def trajectory_objectives(config: Config, teacher: Teacher | None) -> MakeObjective:
    """Returns what makes the objective "trajectory".

    Args:
        config: of the run.
        teacher: there must be one.
    """
    assert teacher is not None
    ddt = models.abstract(models.make_ddt, config)
    few, grid = config.few_step, models.latent_grid(config)
    make = functools.partial(
        trajectory,
        nnx.graphdef(ddt),
        teacher,
        latent_shape=(grid, grid, config.encoder.hidden_size),
        null_label=ddt.null_label,
        times=time_grid(few.solver_steps, models.latent_shift(config), grid=few.solver_grid),
        pairs=few.pairs,
    )
    return lambda *, class_dropout, training=False: make(class_dropout=class_dropout)


def mean_flow_objectives(config: Config, teacher: Teacher | None) -> MakeObjective:
    """Returns what makes the objective "mean_flow".

    Args:
        config: of the run.
        teacher: None for fine-tuning on data.
    """
    ddt, few = models.abstract(models.make_ddt, config), config.few_step
    make = functools.partial(
        mean_flow,
        nnx.graphdef(ddt),
        nnx.graphdef(models.abstract(models.make_ddt, for_derivatives(config))),
        None if config.data.source == "latents" else models.rae_graph(config, decoder=False),
        teacher,
        null_label=ddt.null_label,
        time_distribution=config.flow.time_distribution,
        shift=models.latent_shift(config),
        interval_every=few.interval_every,
        adaptive_power=few.adaptive_power,
        adaptive_constant=few.adaptive_constant,
    )
    return lambda *, class_dropout, training=False: make(
        class_dropout=class_dropout,
        tangent_warmup_steps=few.tangent_warmup_steps if training else 0,
        micro_batches=config.optim.accumulate_steps if training else 1,
    )


def for_derivatives(config: Config) -> Config:
    """Returns the config of networks through which forward mode can pass.

    Fused attention kernels have none. Nothing is kept for a backward pass, so there is nothing to
    compute again.
    """
    compute = dataclasses.replace(config.compute, attention="xla", remat="none")
    return dataclasses.replace(config, compute=compute)


def arguments(inputs: Tree) -> tuple[Array, ...]:
    """Returns the arguments of a DDT with two times, from its objective's inputs."""
    return inputs["z"], inputs["t"], inputs["label"], inputs["r"]


def with_step_number(step: Step) -> Step:
    """Returns the step whose batch holds its number, which warm-up follows."""

    def numbered(state: TrainState, frozen: Tree, batch: Tree) -> tuple[TrainState, Tree]:
        number = jnp.broadcast_to(state.step.astype(jnp.float32), batch["label"].shape)
        return step(state, frozen, batch | {"step": number})

    return numbered
