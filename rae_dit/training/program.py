"""The compiled functions of a training run, and where the arrays that they pass around live."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from rae_dit import build
from rae_dit.config import Config
from rae_dit.training.objective import Tree
from rae_dit.training.sharding import parameter_shardings, replicated
from rae_dit.training.state import TrainState
from rae_dit.training.step import train_step, validation_sums


class Program(NamedTuple):
    """The compiled functions of a run, and the shapes they are compiled for.

    Attributes:
        create: () -> TrainState at step 0.
        step: (state, frozen, batch) -> (state, metrics); donates the state.
        validate: (params, frozen, batch, key) -> sums.
        abstract: TrainState of shapes and shardings.
    """

    create: jax.stages.Wrapped
    step: jax.stages.Wrapped
    validate: jax.stages.Wrapped
    abstract: TrainState


def make_program(config: Config, mesh: Mesh) -> Program:
    """Builds the functions of a run; nothing is compiled yet."""
    optimizer = build.make_optimizer(config)
    module = build.abstract(build.make_trained, config)
    schedule = build.make_schedule(config)
    objective = build.make_objective(config, training=True)
    validation = build.make_objective(config, training=False)

    def create() -> TrainState:
        model_key, run_key = jax.random.split(jax.random.key(config.seed))
        model = build.make_trained(config, nnx.Rngs(model_key))
        params = nnx.to_pure_dict(nnx.state(model))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params),
            key=run_key,
            bad_steps=jnp.int32(0),
            last_good_step=jnp.int32(0),
        )

    abstract = jax.eval_shape(create)
    shardings = state_shardings(abstract, parameter_shardings(module, mesh), optimizer, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )

    def step(state: TrainState, frozen: Tree, batch: Tree) -> tuple[TrainState, Tree]:
        new_state, metrics = train_step(
            state,
            frozen,
            batch,
            objective=objective,
            optimizer=optimizer,
            ema_decay=config.ema.decay,
            accumulate_steps=config.optim.accumulate_steps,
        )
        return new_state, metrics | {"lr": schedule(state.step)}

    validate = functools.partial(validation_sums, objective=validation)
    return Program(
        create=jax.jit(create, out_shardings=shardings),
        step=jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh))),
        validate=jax.jit(validate, out_shardings=replicated(mesh)),
        abstract=abstract,
    )


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
    }
    return TrainState(**fields)
