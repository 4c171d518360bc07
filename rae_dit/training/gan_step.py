"""The training step of stage 1 with LPIPS and a discriminator: both updates in one program.

The order is the reference's: the decoder first, against the discriminator before its update; then
the discriminator, on reconstructions of the updated decoder. Before its start a term is not
computed (`from_step`); the step is one program from the first step to the last.

Source: bytetriper/RAE `train_stage1.py`; SEMANTICS 4.8. docs/stage1.md lists the differences.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from rae_dit.objectives.base import Objective, Tree
from rae_dit.training.gan_updates import (
    Discriminator,
    Perceptual,
    Scalars,
    decoder_gradient,
    discriminator_update,
    from_step,
)
from rae_dit.training.state import DiscriminatorState, TrainState
from rae_dit.training.step import (
    mean_over_micro_batches,
    skip_if_not_finite,
    smallest_update_norm,
    update_average,
)

DISCRIMINATOR_METRICS = (
    *("discriminator_loss", "logits_real", "logits_fake"),
    *("discriminator_gradient_norm", "discriminator_lr"),
)


def gan_step(
    state: TrainState,
    frozen: Tree,
    batch: Tree,
    *,
    objective: Objective,
    rae_graph: nnx.GraphDef,
    perceptual: Perceptual | None,
    gan: Discriminator | None,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulate_steps: int,
) -> tuple[TrainState, Scalars]:
    """Advances decoder and discriminator by one optimizer step; see `train_step`.

    A step at which either has a loss, gradient or update that is not finite changes neither.

    Args:
        state: donated by the caller; `state.discriminator` is there if `gan` is.
        frozen: "rae", and "lpips" and "features" where they are used.
        batch: {"image": f32 [B,H,W,3] in [0,1], "label": i32 [B]}.
        objective: its `sample_inputs` is used.
        rae_graph: the RAE with decoder.
        perceptual: LPIPS, or None.
        gan: the discriminator, or None.
        optimizer: of the decoder.
        ema_decay: of the decoder, once per step.
        accumulate_steps: micro-batches per step; divides B. Each weighs its own adversarial term.

    Returns:
        The next state and the scalars of `train_step`, where "loss" is the reconstruction's, with
        "l1" and "lpips", "gan" and "adaptive_weight" of the decoder, and "discriminator_loss",
        "logits_real", "logits_fake", "discriminator_gradient_norm" and "discriminator_lr". What is
        not computed is 0, the learning rate included.
    """
    key = jax.random.fold_in(state.key, state.step)
    input_key, *augment_keys = jax.random.split(key, 4)
    inputs = objective.sample_inputs(frozen, batch, input_key)
    names = ("decoder_keys", "real_keys", "fake_keys")
    for name, augment_key in zip(names, augment_keys, strict=True):
        inputs[name] = jax.random.split(augment_key, inputs["image"].shape[0])

    def decoder_part(part: Tree) -> tuple[Scalars, Tree]:
        return decoder_gradient(state, frozen, part, rae_graph, perceptual, gan)

    metrics, gradient = mean_over_micro_batches(decoder_part, inputs, accumulate_steps)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = update_average(params, state.ema, ema_decay)
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    finite = [smallest_update_norm(updates)]

    discriminator = state.discriminator
    if gan is not None and discriminator is not None:

        def train(old: DiscriminatorState) -> tuple[DiscriminatorState, Scalars]:
            return discriminator_update(old, params, frozen, inputs, gan, accumulate_steps)

        def wait(old: DiscriminatorState) -> tuple[DiscriminatorState, Scalars]:
            return old, dict.fromkeys(DISCRIMINATOR_METRICS, jnp.float32(0))

        discriminator, discriminator_metrics = from_step(
            gan.discriminator_start, state.step, train, wait, discriminator
        )
        metrics |= discriminator_metrics
        finite.append(optax.tree.norm(discriminator.params))
    new_state, counts = skip_if_not_finite(
        state,
        [*metrics.values(), *finite],
        params=params,
        ema=ema,
        opt_state=opt_state,
        discriminator=discriminator,
    )
    return new_state, metrics | counts
