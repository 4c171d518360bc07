r"""Guidance: extrapolate from a weak prediction through a strong one.

    v = v_weak + w (v_strong - v_weak)                                             (1)

With w = 1 this is the strong model. What "weak" means names the method: the same model without its
label is classifier-free guidance (CFG, arXiv 2207.12598); a smaller, less trained model *with* the
same label is AutoGuidance (arXiv 2406.02507). Guidance acts on all channels. Where in time it acts
(arXiv 2404.07724) is the sampler's business.

Each function returns a `velocity(x, t)` for the samplers.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Velocity = Callable[[Float[Array, "B h w C"], Float[Array, " B"]], Float[Array, "B h w C"]]
Model = Callable[
    [Float[Array, "B h w C"], Float[Array, " B"], Int[Array, " B"]], Float[Array, "B h w C"]
]

Scale = float | Float[Array, ""]


def extrapolate(
    strong: Float[Array, "..."], weak: Float[Array, "..."], scale: Scale
) -> Float[Array, "..."]:
    """Equation (1)."""
    return weak + scale * (strong - weak)


def conditional(model: Model, labels: Int[Array, " B"]) -> Velocity:
    """The model asked with its labels: no guidance."""
    return lambda x, t: model(x, t, labels)


def classifier_free(
    model: Model, labels: Int[Array, " B"], *, null_label: int, scale: Scale
) -> Velocity:
    """CFG; both predictions come from one evaluation on a doubled batch."""
    both = jnp.concatenate([labels, jnp.full_like(labels, null_label)])

    def velocity(x: Array, t: Array) -> Array:
        out = model(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both)
        strong, weak = jnp.split(out, 2)
        return extrapolate(strong, weak, scale)

    return velocity


def autoguidance(model: Model, guide: Model, labels: Int[Array, " B"], *, scale: Scale) -> Velocity:
    """AutoGuidance; each model sees the batch once, with the same labels."""
    return lambda x, t: extrapolate(model(x, t, labels), guide(x, t, labels), scale)
