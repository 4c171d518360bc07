r"""The two sides of stage 1, decoder and discriminator: what each learns from the other.

The weight of the decoder's adversarial term needs two gradients of its last kernel, and both losses
reach the decoder through the image alone. So each loss is differentiated with respect to the image,
and what these two slopes become at the last kernel is read off the pull-back of the decoder; XLA
drops the rest of it. One pull-back of the weighted sum then gives the whole gradient.

Source: bytetriper/RAE `train_stage1.py`; SEMANTICS 4.8.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from rae_dit.models.discriminator import SpectralVector, power_iteration
from rae_dit.objectives.adversarial import adaptive_weight, deception
from rae_dit.objectives.base import Tree
from rae_dit.objectives.reconstruction import decode
from rae_dit.training.state import DiscriminatorState, TrainState
from rae_dit.training.step import mean_over_parts

Image = Float[Array, "B H W 3"]
Scalars = dict[str, Float[Array, ""]]


class Perceptual(NamedTuple):
    """LPIPS as a term of the decoder's loss.

    Attributes:
        graph: of the LPIPS module whose parameters are `frozen["lpips"]`.
        weight: factor of the distance.
        start: first step that has the term.
    """

    graph: nnx.GraphDef
    weight: float
    start: int


class Adversary(NamedTuple):
    """The discriminator and what it is trained by.

    Attributes:
        features: graph of the feature network whose parameters are `frozen["features"]`.
        heads: graph of the heads.
        optimizer: of the heads.
        schedule: its learning rate, by its own updates.
        loss: (logits of real images, logits of reconstructions) -> scalar.
        augment: (keys [B], image) -> image.
        weight: factor of the decoder's term, besides the adaptive one.
        start: first step at which the decoder has its term.
        discriminator_start: first step at which the discriminator is trained.
        judge_noisy: whether the discriminator is trained on reconstructions of noisy tokens.
    """

    features: nnx.GraphDef
    heads: nnx.GraphDef
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    loss: Callable[[Array, Array], Array]
    augment: Callable[[Array, Array], Array]
    weight: float
    start: int
    discriminator_start: int
    judge_noisy: bool

    def logits(
        self, params: Tree, vectors: Tree, frozen: Tree, keys: Key[Array, " B"], image: Image
    ) -> Float[Array, "B L"]:
        """What the discriminator thinks of augmented images."""
        seen = nnx.merge(self.features, frozen["features"])(self.augment(keys, image))
        return nnx.merge(self.heads, params, vectors)(seen)


def create_discriminator(heads: nnx.Module, adversary: Adversary) -> DiscriminatorState:
    """The discriminator's state before its first update."""
    _, params, vectors = nnx.split(heads, nnx.Param, SpectralVector)
    params = nnx.to_pure_dict(params)
    return DiscriminatorState(
        params=params,
        vectors=nnx.to_pure_dict(vectors),
        opt_state=adversary.optimizer.init(params),
        updates=jnp.int32(0),
    )


def decoder_gradient(
    state: TrainState,
    frozen: Tree,
    part: Tree,
    rae_graph: nnx.GraphDef,
    perceptual: Perceptual | None,
    adversary: Adversary | None,
) -> tuple[Scalars, Tree]:
    """Losses of one micro-batch and the gradient of their weighted sum."""
    image, pull_back = jax.vjp(
        lambda params: decode(rae_graph, params, frozen, part["tokens"]), state.params
    )

    def distance(image: Image) -> Float[Array, ""]:
        assert perceptual is not None
        return jnp.mean(nnx.merge(perceptual.graph, frozen["lpips"])(image, part["image"]))

    def opinion(image: Image) -> Float[Array, ""]:
        assert adversary is not None
        assert state.discriminator is not None
        judge = state.discriminator
        return deception(
            adversary.logits(judge.params, judge.vectors, frozen, part["decoder_keys"], image)
        )

    loss, slope = jax.value_and_grad(lambda x: jnp.mean(jnp.abs(x - part["image"])))(image)
    metrics = {"l1": loss}
    if perceptual is not None:
        due = state.step >= perceptual.start
        lpips, lpips_slope = value_and_slope_if(due, distance, image)
        loss, slope = loss + perceptual.weight * lpips, slope + perceptual.weight * lpips_slope
        metrics["lpips"] = lpips
    metrics["loss"] = loss
    if adversary is not None:
        due = state.step >= adversary.start
        gan, gan_slope = value_and_slope_if(due, opinion, image)
        last = [pull_back(x)[0]["predict"]["kernel"] for x in (slope, gan_slope)]
        adaptive = jnp.where(due, adaptive_weight(*last), 0)
        slope += adversary.weight * adaptive * gan_slope
        metrics |= {"gan": gan, "adaptive_weight": adaptive}
    return metrics, pull_back(slope)[0]


def discriminator_update(
    old: DiscriminatorState,
    decoder: Tree,
    frozen: Tree,
    example: Tree,
    rae_graph: nnx.GraphDef,
    adversary: Adversary,
    accumulate_steps: int,
) -> tuple[DiscriminatorState, Scalars]:
    """One power iteration and one optimizer step of the heads; `decoder` is held."""
    vectors = power_iteration(old.params, old.vectors)

    def part_gradient(part: Tree) -> tuple[Scalars, Tree]:
        fake = as_saved(decode(rae_graph, decoder, frozen, part["tokens"]))

        def loss(params: Tree) -> tuple[Float[Array, ""], Scalars]:
            real_logits = adversary.logits(
                params, vectors, frozen, part["real_keys"], part["image"]
            )
            fake_logits = adversary.logits(params, vectors, frozen, part["fake_keys"], fake)
            loss = adversary.loss(real_logits, fake_logits)
            return loss, {
                "discriminator_loss": loss,
                "logits_real": jnp.mean(real_logits),
                "logits_fake": jnp.mean(fake_logits),
            }

        gradient, metrics = jax.grad(loss, has_aux=True)(old.params)
        return metrics, gradient

    metrics, gradient = mean_over_parts(part_gradient, example, accumulate_steps)
    updates, opt_state = adversary.optimizer.update(gradient, old.opt_state, old.params)
    new = DiscriminatorState(
        params=optax.apply_updates(old.params, updates),
        vectors=vectors,
        opt_state=opt_state,
        updates=old.updates + 1,
    )
    return new, metrics | {
        "discriminator_gradient_norm": optax.tree.norm(gradient),
        "discriminator_lr": adversary.schedule(old.updates),
    }


def value_and_slope_if(
    due: Bool[Array, ""], function: Callable[[Image], Float[Array, ""]], image: Image
) -> tuple[Float[Array, ""], Image]:
    """Value and gradient of a function of the image; zeros, and no work, where it is not due."""
    return jax.lax.cond(
        due, jax.value_and_grad(function), lambda x: (jnp.float32(0), jnp.zeros_like(x)), image
    )


def as_saved(image: Image) -> Image:
    """Clipped to [0, 1] and rounded to 8 bit, like the real images were."""
    return jnp.round(255 * jnp.clip(image, 0, 1)) / 255
