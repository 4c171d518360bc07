"""One training step, the same for every act; and stage 2's objective, flow matching."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from rae_dit.diffusion import flow
from rae_dit.objectives.base import Objective, PerSample, Tree
from rae_dit.training.state import TrainState

AnyTree = TypeVar("AnyTree")
Totals = tuple[Float[Array, ""], dict[str, Float[Array, ""]], Tree]
"""Loss, metrics and gradient."""


def flow_matching(
    ddt_graph: nnx.GraphDef,
    rae_graph: nnx.GraphDef,
    *,
    null_label: int,
    time_distribution: str,
    shift: float,
    class_dropout: float,
) -> Objective:
    """Stage 2: the velocity of the path from a latent to noise (diffusion/flow, equation 3).

    `params` are the DDT's; `frozen` is an RAE with its encoder and latent statistics.
    """

    def draw(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        time_key, noise_key, label_key = jax.random.split(key, 3)
        latent = nnx.merge(rae_graph, frozen).encode(batch["image"])
        batch_size = latent.shape[0]
        dropped = jax.random.bernoulli(label_key, class_dropout, (batch_size,))
        return {
            "latent": latent,
            "t": flow.sample_time(
                time_key, batch_size, distribution=time_distribution, shift=shift
            ),
            "noise": jax.random.normal(noise_key, latent.shape),
            "label": jnp.where(dropped, null_label, batch["label"]),
        }

    def loss(params: Tree, frozen: Tree, example: Tree) -> PerSample:
        latent, noise, t = example["latent"], example["noise"], example["t"]
        x_t = flow.interpolate(latent, noise, t)
        velocity = nnx.merge(ddt_graph, params)(x_t, t, example["label"])
        return flow.velocity_loss(velocity, latent, noise), {}

    return Objective(draw, loss)


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Tree,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulate_steps: int,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Advances the state by one optimizer step.

    A step whose loss, gradient or update is not finite leaves parameters, EMA and optimizer as they
    were; only the step number, and so the data and the random numbers, move on; and it is counted.

    Args:
        state: donated by the caller.
        frozen: what is used but not trained; an argument, since constants inlined in a program
            make it large and slow to compile.
        batch: {"image": f32 [B,H,W,3] in [0,1], "label": i32 [B]}.
        objective: what is learned.
        optimizer: the optax chain.
        ema_decay: d of e <- d e + (1 - d) p, once per optimizer step.
        accumulate_steps: micro-batches per step; divides B.

    Returns:
        The next state and float32 scalars: "loss", "gradient_norm", "skipped" (0 or 1),
        "bad_steps" (skipped so far in the run) and the objective's own.
    """
    key = jax.random.fold_in(state.key, state.step)
    example = objective.draw(frozen, batch, key)
    loss, metrics, gradient = mean_gradient(
        objective, state.params, frozen, example, accumulate_steps
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = optax.incremental_update(params, state.ema, 1 - ema_decay)

    gradient_norm = optax.tree.norm(gradient)
    good = jnp.isfinite(jnp.stack([loss, gradient_norm, shared_factors(updates)])).all()
    new_state, counts = advance(state, good, params=params, ema=ema, opt_state=opt_state)
    return new_state, metrics | counts | {"loss": loss, "gradient_norm": gradient_norm}


def shared_factors(updates: Tree) -> Float[Array, ""]:
    """A number that is finite if what the optimizer multiplies all leaves with is.

    Number by number, a finite gradient and finite moments make a finite update (epsilon is
    positive), unless the learning rate, a bias correction or the clip's factor is not finite. That
    spoils every leaf, so that the smallest one tells. The norm of all updates would read gradient
    and moments once more before anything may be written, which is 1 % of a step of DiT^DH-XL.
    """
    return optax.tree.norm(min(jax.tree.leaves(updates), key=lambda leaf: leaf.size))


def advance(
    state: TrainState,
    good: Bool[Array, ""],
    *,
    params: Tree,
    ema: Tree,
    opt_state: Any,
    discriminator: Any = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """The state one step on: with what was learned if the step was good, else as it was.

    Returns:
        The next state, and "skipped" (0 or 1) and "bad_steps" (skipped so far in the run).
    """
    new_state = TrainState(
        step=state.step + 1,
        params=choose(good, params, state.params),
        ema=choose(good, ema, state.ema),
        opt_state=choose(good, opt_state, state.opt_state),
        key=state.key,
        bad_steps=state.bad_steps + ~good,
        last_good_step=jnp.where(good, state.step + 1, state.last_good_step),
        discriminator=choose(good, discriminator, state.discriminator),
    )
    return new_state, {
        "skipped": 1 - good.astype(jnp.float32),
        "bad_steps": new_state.bad_steps.astype(jnp.float32),
    }


def mean_gradient(
    objective: Objective, params: Tree, frozen: Tree, example: Tree, accumulate_steps: int
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], Tree]:
    """Mean loss, metrics and gradient over the batch, in `accumulate_steps` equal parts."""

    def mean_loss(params: Tree, part: Tree) -> tuple[Array, dict[str, Array]]:
        loss, metrics = objective.loss(params, frozen, part)
        return jnp.mean(loss), jax.tree.map(jnp.mean, metrics)

    def value_and_gradient(part: Tree) -> Totals:
        (loss, metrics), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params, part)
        return loss, metrics, gradient

    return mean_over_parts(value_and_gradient, example, accumulate_steps)


def mean_over_parts(
    function: Callable[[Tree], AnyTree], example: Tree, accumulate_steps: int
) -> AnyTree:
    """Mean of `function` (example -> tree of float arrays) over equal parts of the batch.

    Micro-batch i takes rows i, i + k, i + 2k, ...: a device's rows are then shared evenly among
    the micro-batches and none has to travel.
    """
    if accumulate_steps == 1:
        return function(example)

    def split(leaf: Array) -> Array:
        rows = leaf.reshape(-1, accumulate_steps, *leaf.shape[1:])
        return jnp.moveaxis(rows, 1, 0)

    def add(total: AnyTree, part: Tree) -> tuple[AnyTree, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    parts = jax.tree.map(split, example)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first)
    )
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / accumulate_steps, total)


def choose(condition: Bool[Array, ""], yes: AnyTree, no: AnyTree) -> AnyTree:
    """One tree or the other, leaf by leaf, without a branch."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def validation_sums(
    params: Tree, frozen: Tree, batch: Tree, key: Key[Array, ""], *, objective: Objective
) -> dict[str, Float[Array, ""]]:
    """Sums over a padded batch: "loss", the objective's metrics, and "weight" to divide by."""
    example = objective.draw(frozen, batch, key)
    loss, metrics = objective.loss(params, frozen, example)
    weight = batch["weight"]
    sums = {name: jnp.sum(value * weight) for name, value in (metrics | {"loss": loss}).items()}
    return sums | {"weight": jnp.sum(weight)}
