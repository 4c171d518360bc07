"""Stage 1 with a perceptual loss and a discriminator: both updates in one step.

The order is the reference's: the decoder first, judged by the discriminator as it stands; then the
discriminator, on reconstructions of the decoder as it has become. Before its start a term is not
computed (`lax.cond`); the step is one program from the first step to the last. What the two sides
learn from is in sides.py.

Source: bytetriper/RAE `train_stage1.py`; SEMANTICS 4.8. docs/stage1.md lists the differences.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from rae_dit.objectives.base import Objective, Tree
from rae_dit.training.gan_updates import (
    Adversary,
    Perceptual,
    Scalars,
    decoder_gradient,
    discriminator_update,
)
from rae_dit.training.state import DiscriminatorState, TrainState
from rae_dit.training.step import advance, mean_over_parts, shared_factors

NO_JUDGEMENT = (
    *("discriminator_loss", "logits_real", "logits_fake"),
    *("discriminator_gradient_norm", "discriminator_lr"),
)


def stage1_step(
    state: TrainState,
    frozen: Tree,
    batch: Tree,
    *,
    objective: Objective,
    rae_graph: nnx.GraphDef,
    perceptual: Perceptual | None,
    adversary: Adversary | None,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulate_steps: int,
) -> tuple[TrainState, Scalars]:
    """Advances decoder and discriminator by one optimizer step; see `train_step`.

    A step at which either has a loss, gradient or update that is not finite changes neither.

    Args:
        state: donated by the caller; `state.discriminator` is there if `adversary` is.
        frozen: "rae", and "lpips" and "features" where they are used.
        batch: {"image": f32 [B,H,W,3] in [0,1], "label": i32 [B]}.
        objective: its `draw` is used.
        rae_graph: the RAE with decoder.
        perceptual: LPIPS, or None.
        adversary: the discriminator, or None.
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
    draw_key, *augment_keys = jax.random.split(key, 4)
    example = objective.draw(frozen, batch, draw_key)
    names = ("decoder_keys", "real_keys", "fake_keys")
    for name, augment_key in zip(names, augment_keys, strict=True):
        example[name] = jax.random.split(augment_key, example["image"].shape[0])

    def decoder_part(part: Tree) -> tuple[Scalars, Tree]:
        return decoder_gradient(state, frozen, part, rae_graph, perceptual, adversary)

    metrics, gradient = mean_over_parts(decoder_part, example, accumulate_steps)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = optax.incremental_update(params, state.ema, 1 - ema_decay)
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    finite = [shared_factors(updates)]

    discriminator = state.discriminator
    if adversary is not None and discriminator is not None:
        judged = {name: example[name] for name in ("image", "real_keys", "fake_keys")}
        judged["tokens"] = example["tokens" if adversary.judge_noisy else "clean_tokens"]

        def train(old: DiscriminatorState) -> tuple[DiscriminatorState, Scalars]:
            return discriminator_update(
                old, params, frozen, judged, rae_graph, adversary, accumulate_steps
            )

        def wait(old: DiscriminatorState) -> tuple[DiscriminatorState, Scalars]:
            return old, dict.fromkeys(NO_JUDGEMENT, jnp.float32(0))

        due = state.step >= adversary.discriminator_start
        discriminator, judgement = jax.lax.cond(due, train, wait, discriminator)
        metrics |= judgement
        finite.append(optax.tree.norm(discriminator.params))
    good = jnp.isfinite(jnp.stack([*metrics.values(), *finite])).all()
    new_state, counts = advance(
        state, good, params=params, ema=ema, opt_state=opt_state, discriminator=discriminator
    )
    return new_state, metrics | counts
