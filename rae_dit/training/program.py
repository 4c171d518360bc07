"""The jitted functions of a training run, and the shardings of their arguments."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from rae_dit import compiler
from rae_dit.models.pixels import to_unit
from rae_dit.objectives.base import Objective, Tree
from rae_dit.training.keys import run_keys
from rae_dit.training.sharding import check_fsdp, parameter_shardings, replicated, with_mesh
from rae_dit.training.state import TrainState
from rae_dit.training.task import Task


class Program(NamedTuple):
    """The jitted functions of a run, and the shapes they are compiled for.

    Attributes:
        create: () -> TrainState at step 0.
        step: (state, frozen, batch) -> (state, metrics); donates the state. The images of a batch
            are uint8, or float32 in [0, 1].
        validate: (params, frozen, batch, key) -> sums.
        telemetry: (params, frozen, batch, key) -> scalars; None for a task without.
        abstract: TrainState of shapes and shardings.
    """

    create: jax.stages.Wrapped
    step: jax.stages.Wrapped
    validate: jax.stages.Wrapped
    telemetry: jax.stages.Wrapped | None
    abstract: TrainState


def build_program(task: Task, mesh: Mesh, *, seed: int) -> Program:
    """Builds the functions of a run; compiles nothing.

    Args:
        task: what is trained.
        mesh: the devices.
        seed: of initial weights and of the run's random numbers.

    Raises:
        ConfigError: `sharding.fsdp` would leave most parameters whole on every device.
    """
    check_fsdp(task.module, mesh)

    def create() -> TrainState:
        keys = run_keys(seed)
        params = nnx.to_pure_dict(nnx.state(task.create(nnx.Rngs(keys.model))))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=task.optimizer.init(params),
            key=keys.run,
            bad_steps=jnp.int32(0),
            last_good_step=jnp.int32(0),
            discriminator=task.create_discriminator() if task.create_discriminator else None,
        )

    def step(state: TrainState, frozen: Tree, batch: Tree) -> tuple[TrainState, Tree]:
        new_state, metrics = task.step(state, frozen, with_unit_images(batch))
        updates = state.step - state.bad_steps  # the optimizer does not count a skipped step
        return new_state, metrics | {"lr": task.schedule(updates)}

    abstract = jax.eval_shape(create)
    parameters = parameter_shardings(task.module, mesh)
    shardings = state_shardings(abstract, parameters, task.optimizer, mesh)
    everywhere = replicated(mesh)
    jit = functools.partial(
        jax.jit, compiler_options=compiler.OPTIONS.get(mesh.devices.flat[0].platform)
    )

    def measure(function: Callable[..., Any]) -> jax.stages.Wrapped:
        def measured(params: Tree, frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Any:
            return function(params, frozen, with_unit_images(batch), key)

        return jit(with_mesh(mesh, measured), out_shardings=everywhere)

    return Program(
        create=jit(create, out_shardings=shardings),
        step=jit(with_mesh(mesh, step), donate_argnums=0, out_shardings=(shardings, everywhere)),
        validate=measure(functools.partial(validation_sums, objective=task.validation)),
        telemetry=None if task.telemetry is None else measure(task.telemetry),
        abstract=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract,
            shardings,
        ),
    )


def with_unit_images(batch: Tree) -> Tree:
    """Converts the images of a batch to float32 in [0, 1]; they cross to the device as bytes.

    A batch of cached latents has none.
    """
    return batch | ({"image": to_unit(batch["image"])} if "image" in batch else {})


def validation_sums(
    params: Tree, frozen: Tree, batch: Tree, key: Key[Array, ""], *, objective: Objective
) -> dict[str, Float[Array, ""]]:
    """Sums loss and metrics over a padded batch, with the "weight" to divide them by."""
    inputs = objective.sample_inputs(frozen, batch, key)
    loss, metrics = objective.loss(params, frozen, inputs)
    weight = batch["weight"]
    sums = {name: jnp.sum(value * weight) for name, value in (metrics | {"loss": loss}).items()}
    return sums | {"weight": jnp.sum(weight)}


def state_shardings(
    abstract: TrainState, parameters: Tree, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
    """Lays out a TrainState: moments as their parameters, all else replicated."""
    everywhere = replicated(mesh)

    def is_absent(leaf: Any) -> bool:  # belongs to the other optimizer of an `optax.partition`
        return isinstance(leaf, optax.MaskedNode)

    moments = optax.tree_map_params(
        optimizer,
        lambda leaf, sharding: leaf if is_absent(leaf) else sharding,
        abstract.opt_state,
        parameters,
        transform_non_params=lambda _: everywhere,
        is_leaf=is_absent,
    )
    fields: dict[str, Any] = {
        "step": everywhere,
        "params": parameters,
        "ema": parameters,
        "opt_state": moments,
        "key": everywhere,
        "bad_steps": everywhere,
        "last_good_step": everywhere,
        "discriminator": jax.tree.map(lambda _: everywhere, abstract.discriminator),
    }
    return TrainState(**fields)
