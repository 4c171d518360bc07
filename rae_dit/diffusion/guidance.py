r"""Guidance: extrapolate from a weak prediction through a strong one.

    v = v_weak + w (v_strong - v_weak)                                             (1)

With w = 1 this is the strong model. What "weak" means names the method: the same model without its
label is classifier-free guidance (CFG, arXiv 2207.12598); a smaller, less trained model *with* the
same label is AutoGuidance (arXiv 2406.02507); a second head of the same network, early in its
backbone, is internal guidance (RAEv2, arXiv 2605.18324), which costs no second evaluation.

Guidance acts on all channels, and may be confined to an interval of times (arXiv 2404.07724): a
`VelocityField` holds the velocity outside it and inside. Internal guidance makes a model of a
model, so CFG may be put on top: both of its branches are then guided internally first.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Velocity = Callable[[Float[Array, "B h w C"], Float[Array, " B"]], Float[Array, "B h w C"]]
Model = Callable[
    [Float[Array, "B h w C"], Float[Array, " B"], Int[Array, " B"]], Float[Array, "B h w C"]
]

Heads = Callable[
    [Float[Array, "B h w C"], Float[Array, " B"], Int[Array, " B"]],
    tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]],
]

Scale = float | Float[Array, "..."]
"""One for a batch, or an array that broadcasts against it: one for each sample."""


class VelocityField(NamedTuple):
    """The velocity that a solver integrates: guided at times in an interval, plain outside it.

    Attributes:
        plain: velocity outside the interval.
        guided: velocity inside it; None for no guidance at all.
        interval: inclusive (lowest, highest) time of guidance.
    """

    plain: Velocity
    guided: Velocity | None = None
    interval: tuple[float, float] = (0.0, 1.0)

    def at(self, t: float) -> Velocity:
        """Returns the velocity in force at a time that is known while tracing."""
        low, high = self.interval
        return self.guided if self.guided is not None and low <= t <= high else self.plain

    def __call__(self, x: Float[Array, "B ..."], t: Float[Array, ""]) -> Float[Array, "B ..."]:
        """Evaluates the velocity in force at a time that is known only while running."""
        if self.guided is None:
            return self.plain(x, broadcast_time(t, x))
        low, high = self.interval
        inside = (low <= t) & (t <= high)
        return jax.lax.cond(inside, self.guided, self.plain, x, broadcast_time(t, x))


def broadcast_time(t: Float[Array, ""], x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Repeats one time for every sample of a batch."""
    return jnp.full(x.shape[:1], t, x.dtype)


def extrapolate(
    strong: Float[Array, "..."], weak: Float[Array, "..."], scale: Scale
) -> Float[Array, "..."]:
    """Applies equation (1)."""
    return weak + scale * (strong - weak)


def conditional(model: Model, labels: Int[Array, " B"]) -> Velocity:
    """Returns the velocity of the model with its labels: no guidance."""
    return lambda x, t: model(x, t, labels)


def classifier_free(
    model: Model, labels: Int[Array, " B"], *, null_label: int, scale: Scale
) -> Velocity:
    """Returns CFG's velocity; both predictions come from one evaluation on a doubled batch."""
    both = jnp.concatenate([labels, jnp.full_like(labels, null_label)])

    def velocity(x: Array, t: Array) -> Array:
        out = model(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both)
        strong, weak = jnp.split(out, 2)
        return extrapolate(strong, weak, scale)

    return velocity


def autoguidance(model: Model, guide: Model, labels: Int[Array, " B"], *, scale: Scale) -> Velocity:
    """Returns AutoGuidance's velocity; each model sees the batch once, with the same labels."""
    return lambda x, t: extrapolate(model(x, t, labels), guide(x, t, labels), scale)


def internal(
    heads: Heads,
    *,
    scale: Scale,
    interval: tuple[float, float],
    null: tuple[int, float] | None = None,
) -> Model:
    """Returns a model that guides itself away from its second head at times in an interval.

    Args:
        heads: gives the velocities of the whole network and of its second head.
        scale: w of equation (1).
        interval: inclusive (lowest, highest) time of guidance; outside, the whole network alone.
        null: the label that means "no class", and w there, as in CFG's weak branch; None for w.
    """

    def model(x: Array, t: Array, labels: Array) -> Array:
        strong, weak = heads(x, t, labels)
        low, high = interval
        w = scale if null is None else jnp.where(labels == null[0], null[1], scale)
        extra = jnp.where((low <= t) & (t <= high), w - 1.0, 0.0)
        return strong + extra.reshape(-1, *(1,) * (x.ndim - 1)) * (strong - weak)

    return model


def guided_velocity(
    kind: str,
    model: Model,
    guide: Model | None,
    labels: Int[Array, " B"],
    scale: Scale,
    *,
    null_label: int,
) -> Velocity | None:
    """Returns the velocity inside the interval of guidance; None where the model is all there is.

    Args:
        kind: "none", "cfg", "autoguidance" or "internal" (which is in the model already).
        model: the strong one.
        guide: the weak one of "autoguidance".
        labels: int32 classes.
        scale: w of equation (1).
        null_label: the label that means "no class".

    Raises:
        ValueError: unknown kind of guidance.
    """
    match kind:
        case "none" | "internal":
            return None
        case "cfg":
            return classifier_free(model, labels, null_label=null_label, scale=scale)
        case "autoguidance" if guide is not None:
            return autoguidance(model, guide, labels, scale=scale)
    raise ValueError(f"guidance: got {kind!r}; expected 'cfg', 'autoguidance' or 'internal'")
