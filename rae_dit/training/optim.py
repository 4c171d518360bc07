"""Learning-rate schedule and optimizers."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def learning_rate(
    step: Int[Array, ""],
    *,
    peak: float,
    warmup_steps: int,
    warmup_from_zero: bool,
    decay: str,
    decay_end_step: int,
    final: float,
) -> Float[Array, ""]:
    """Computes the reference's schedule at an optimizer step counted from 0.

    Up to `warmup_steps`: the peak, or (step + 1) / warmup_steps of it if from zero. Then from the
    peak to `final` along a line or half a cosine, reached at `decay_end_step`; then constant.

    Args:
        step: optimizer steps taken so far.
        peak: the rate of the plateau.
        warmup_steps: length of the first phase; may be 0.
        warmup_from_zero: rise to the peak instead of starting there.
        decay: "constant" (no decay), "linear" or "cosine".
        decay_end_step: where the decay ends.
        final: the rate from there on.

    Raises:
        ValueError: on another decay.

    Source: bytetriper/RAE `utils/optim_utils.py`, SEMANTICS 4.8.
    """
    progress = (step - warmup_steps) / max(1, decay_end_step - warmup_steps)
    progress = jnp.clip(progress, 0.0, 1.0)
    match decay:
        case "constant":
            remaining = jnp.ones_like(progress)
        case "linear":
            remaining = 1 - progress
        case "cosine":
            remaining = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        case _:
            raise ValueError(
                f"optim.decay: got {decay!r}; expected 'constant', 'linear' or 'cosine'"
            )
    rate = final + (peak - final) * remaining
    if warmup_from_zero:
        rate = jnp.where(step < warmup_steps, peak * (step + 1) / max(1, warmup_steps), rate)
    return jnp.asarray(rate, jnp.float32)


def adamw(
    schedule: optax.Schedule,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    clip_norm: float | None,
    decay_mask: dict,
) -> optax.GradientTransformation:
    """Makes AdamW behind a clip by global norm.

    Args:
        schedule: step -> learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: decoupled decay.
        clip_norm: largest global norm of a gradient; None does not clip.
        decay_mask: parameter tree of bools; False leaves (constants) never decay.

    Returns:
        The optimizer. Its moments have the parameters' dtype and, in training, their shardings.
    """
    return optax.chain(
        clip(clip_norm),
        optax.adamw(
            schedule,
            b1=beta1,
            b2=beta2,
            eps=epsilon,
            weight_decay=weight_decay,
            mask=decay_mask,
        ),
    )


def sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    clip_norm: float | None,
    decay_mask: dict,
) -> optax.GradientTransformation:
    """Makes gradient descent with momentum, as in torch, behind a clip by global norm.

    With gradient g, rate r and the decay coupled (an L2 penalty, unlike AdamW's):

        v <- momentum v + g + weight_decay p,      p <- p - r v

    Arguments are those of `adamw`.
    """
    return optax.chain(
        clip(clip_norm),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.sgd(schedule, momentum=momentum),
    )


def clip(norm: float | None) -> optax.GradientTransformation:
    """Scales a gradient of a larger global norm down to `norm`; None changes nothing."""
    return optax.identity() if norm is None else optax.clip_by_global_norm(norm)
