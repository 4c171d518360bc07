"""The compiled functions of a training run, and where the arrays that they pass around live."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from rae_dit import compiler
from rae_dit.config import Config
from rae_dit.objectives.base import Tree
from rae_dit.setup import models, stage1
from rae_dit.training.gan_updates import create_discriminator
from rae_dit.training.sharding import in_force, parameter_shardings, replicated
from rae_dit.training.state import TrainState
from rae_dit.training.step import validation_sums
from rae_dit.training.telemetry import flow_telemetry


class Program(NamedTuple):
    """The compiled functions of a run, and the shapes they are compiled for.

    Attributes:
        create: () -> TrainState at step 0.
        step: (state, frozen, batch) -> (state, metrics); donates the state.
        validate: (params, frozen, batch, key) -> sums.
        telemetry: (params, frozen, batch, key) -> scalars; None where nothing is observed.
        abstract: TrainState of shapes and shardings.
    """

    create: jax.stages.Wrapped
    step: jax.stages.Wrapped
    validate: jax.stages.Wrapped
    telemetry: jax.stages.Wrapped | None
    abstract: TrainState


def make_program(config: Config, mesh: Mesh) -> Program:
    """Builds the functions of a run; nothing is compiled yet."""
    optimizer = models.make_optimizer(config)
    module = models.abstract(models.make_trained, config)
    schedule = models.make_schedule(config)
    objective = models.make_objective(config, training=True)
    validation = models.make_objective(config, training=False)
    take_step = stage1.make_step(config, objective, optimizer)

    def create() -> TrainState:
        model_key, run_key = jax.random.split(jax.random.key(config.seed))
        model = models.make_trained(config, nnx.Rngs(model_key))
        params = nnx.to_pure_dict(nnx.state(model))
        discriminator = None
        if stage1.has_discriminator(config):
            heads_key = jax.random.fold_in(jax.random.key(config.seed), 1)
            heads = stage1.make_heads(config, nnx.Rngs(heads_key))
            discriminator = create_discriminator(heads, stage1.make_adversary(config))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params),
            key=run_key,
            bad_steps=jnp.int32(0),
            last_good_step=jnp.int32(0),
            discriminator=discriminator,
        )

    abstract = jax.eval_shape(create)
    shardings = state_shardings(abstract, parameter_shardings(module, mesh), optimizer, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )

    def step(state: TrainState, frozen: Tree, batch: Tree) -> tuple[TrainState, Tree]:
        new_state, metrics = take_step(state, frozen, batch)
        return new_state, metrics | {"lr": schedule(state.step)}

    validate = functools.partial(validation_sums, objective=validation)
    telemetry = functools.partial(
        flow_telemetry, objective=validation, ddt_graph=nnx.graphdef(module)
    )
    observed = config.metrics.telemetry and config.objective == "flow_matching"
    everywhere = replicated(mesh)
    jit = functools.partial(
        jax.jit, compiler_options=compiler.OPTIONS.get(mesh.devices.flat[0].platform)
    )
    return Program(
        create=jit(create, out_shardings=shardings),
        step=jit(over(mesh, step), donate_argnums=0, out_shardings=(shardings, everywhere)),
        validate=jit(over(mesh, validate), out_shardings=everywhere),
        telemetry=jit(over(mesh, telemetry), out_shardings=everywhere) if observed else None,
        abstract=abstract,
    )


def over(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, traced with a mesh in force: models.stack splits activations over it."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with in_force(mesh):
            return function(*arguments)

    return traced


def state_shardings(
    abstract: TrainState, parameters: Tree, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
    """A TrainState of shardings: moments lie as their parameters do, the rest is copied."""
    everywhere = replicated(mesh)
    moments = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract.opt_state,
        parameters,
        transform_non_params=lambda _: everywhere,
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
