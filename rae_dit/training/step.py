"""One training step, the same for every objective."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from rae_dit.objectives.base import Objective, PerSample, Tree
from rae_dit.training.state import TrainState

AnyTree = TypeVar("AnyTree")
Scalar = Float[Array, ""]


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Tree,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulate_steps: int,
    observe: Callable[[Tree], dict[str, Scalar]] = lambda updates: {},
) -> tuple[TrainState, dict[str, Scalar]]:
    """Advances the state by one optimizer step.

    Args:
        state: donated by the caller.
        frozen: networks that are used and not trained; an argument, since constants inlined in a
            program make it large and slow to compile.
        batch: {"image": f32 [B,H,W,3] in [0,1], "label": i32 [B]}.
        objective: the objective to minimize.
        optimizer: the optax chain.
        ema_decay: d of e <- d e + (1 - d) p, once per optimizer step.
        accumulate_steps: micro-batches per step; divides B.
        observe: gives more scalars of what is added to the parameters.

    Returns:
        The next state and float32 scalars: "loss", "gradient_norm", the objective's own, those of
        `observe`, and the two of `skip_if_not_finite`.
    """
    key = jax.random.fold_in(state.key, state.step)
    inputs = objective.sample_inputs(frozen, batch, key)
    loss, metrics, grads = accumulate(
        objective.loss, state.params, frozen, inputs, accumulate_steps
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = update_average(params, state.ema, ema_decay)

    checked = {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
    state, counts = skip_if_not_finite(
        state,
        [*checked.values(), smallest_update_norm(updates)],
        params=params,
        ema=ema,
        opt_state=opt_state,
    )
    return state, metrics | observe(updates) | counts | checked


def update_average(params: Tree, ema: Tree, decay: float) -> Tree:
    """Computes the next average d e + (1 - d) p.

    Where both are equal it stays: rounding moves d p + (1 - d) p away from p, over many steps by up
    to 5e-5 of it (d = .9995), and so would change constants that nothing trains.
    """

    def keep_equal(p: Array, e: Array, average: Array) -> Array:
        return jnp.where(p == e, e, average)

    return jax.tree.map(keep_equal, params, ema, optax.incremental_update(params, ema, 1 - decay))


def accumulate(
    loss: Callable[[Tree, Tree, Tree], PerSample],
    params: Tree,
    frozen: Tree,
    inputs: Tree,
    steps: int,
) -> tuple[Scalar, dict[str, Scalar], Tree]:
    """Computes the mean loss, metrics and gradient over the batch, in `steps` micro-batches."""

    def mean_loss(params: Tree, inputs: Tree) -> tuple[Array, dict[str, Array]]:
        losses, metrics = loss(params, frozen, inputs)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    gradient = functools.partial(jax.value_and_grad(mean_loss, has_aux=True), params)
    (mean, metrics), grads = mean_over_micro_batches(gradient, inputs, steps)
    return mean, metrics, grads


def mean_over_micro_batches(
    function: Callable[[Tree], AnyTree], inputs: Tree, steps: int
) -> AnyTree:
    """Averages `function` (inputs -> tree of float arrays) over equal parts of the batch.

    Micro-batch i takes rows i, i + steps, i + 2 steps, ...: a device's rows are then shared evenly
    among the micro-batches and none has to travel.
    """
    if steps == 1:
        return function(inputs)

    def split(leaf: Array) -> Array:
        rows = leaf.reshape(-1, steps, *leaf.shape[1:])
        return jnp.moveaxis(rows, 1, 0)

    def add(total: AnyTree, part: Tree) -> tuple[AnyTree, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    parts = jax.tree.map(split, inputs)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first)
    )
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / steps, total)


def skip_if_not_finite(
    state: TrainState,
    scalars: list[Scalar],
    *,
    params: Tree,
    ema: Tree,
    opt_state: Any,
    discriminator: Any = None,
) -> tuple[TrainState, dict[str, Scalar]]:
    """Returns the updated state, or the old one with `step + 1` if a scalar is not finite.

    A skipped step leaves parameters, EMA and optimizer as they were; only the step number, and so
    the data and the random numbers, move on; and it is counted.

    Args:
        state: before the step.
        scalars: loss and norms; one that is not finite skips the step.
        params: after the step; `ema`, `opt_state` and `discriminator` likewise.
        ema: of `params`.
        opt_state: of the optimizer.
        discriminator: of a run that trains one.

    Returns:
        The next state, and "skipped" (0 or 1) and "bad_steps" (skipped so far in the run).
    """
    good = jnp.isfinite(jnp.stack(scalars)).all()

    def choose(new: AnyTree, old: AnyTree) -> AnyTree:
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

    new_state = TrainState(
        step=state.step + 1,
        params=choose(params, state.params),
        ema=choose(ema, state.ema),
        opt_state=choose(opt_state, state.opt_state),
        key=state.key,
        bad_steps=state.bad_steps + ~good,
        last_good_step=jnp.where(good, state.step + 1, state.last_good_step),
        discriminator=choose(discriminator, state.discriminator),
    )
    return new_state, {
        "skipped": 1 - good.astype(jnp.float32),
        "bad_steps": new_state.bad_steps.astype(jnp.float32),
    }


def smallest_update_norm(updates: Tree) -> Scalar:
    """Returns the norm of the smallest leaf: not finite if a factor that all leaves share is not.

    Element by element, a finite gradient and finite moments make a finite update (epsilon is
    positive), unless the learning rate, a bias correction or the clip's factor is not finite. That
    spoils every leaf, so the smallest one tells. The norm of all updates would read gradient and
    moments once more before anything may be written, which is 1 % of a step of DiT^DH-XL.
    """
    return optax.tree.norm(min(jax.tree.leaves(updates), key=lambda leaf: leaf.size))
