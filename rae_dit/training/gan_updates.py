"""Gradients of decoder and discriminator in stage 1.

The weight of the decoder's adversarial term needs two gradients at its last kernel, and both losses
reach the decoder through the image alone. So each loss is differentiated with respect to the image,
and the last kernel's gradient is read off the pullback of the decoder; XLA drops the rest of it.
One pullback of the weighted sum then gives the whole gradient.

Source: bytetriper/RAE `train_stage1.py`; SEMANTICS 4.8.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Shaped

from rae_dit.models.discriminator import SpectralVector, power_iteration
from rae_dit.objectives.adversarial import adaptive_weight, generator_loss
from rae_dit.objectives.base import Tree
from rae_dit.objectives.reconstruction import decode
from rae_dit.training.state import DiscriminatorState, TrainState
from rae_dit.training.step import mean_over_micro_batches

Image = Float[Array, "B H W 3"]
Scalars = dict[str, Float[Array, ""]]
Operand = TypeVar("Operand")
Result = TypeVar("Result")


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


class Discriminator(NamedTuple):
    """The discriminator's networks, optimizer and schedule.

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
        fakes: (decoder, frozen, inputs) -> the images that it is trained on as fakes, before they
            are rounded; `setup/gan.py` decodes clean tokens or noisy ones.
        iterate_per_pass: whether the spectral norms' vectors are iterated before the pass over real
            images and again before that over fakes, as torch does, or once for both.
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
    fakes: Callable[[Tree, Tree, Tree], Image]
    iterate_per_pass: bool

    def logits(
        self, params: Tree, vectors: Tree, frozen: Tree, keys: Key[Array, " B"], image: Image
    ) -> Float[Array, "B L"]:
        """Computes the logits of augmented images."""
        return self.judge(params, vectors, self.describe(frozen, keys, image))

    def describe(
        self, frozen: Tree, keys: Key[Array, " B"], image: Image
    ) -> list[Float[Array, "B N C"]]:
        """Computes the features of augmented images."""
        return nnx.merge(self.features, frozen["features"])(self.augment(keys, image))

    def judge(
        self, params: Tree, vectors: Tree, features: list[Float[Array, "B N C"]]
    ) -> Float[Array, "B L"]:
        """Computes the logits of features."""
        return nnx.merge(self.heads, params, vectors)(features)


def create_discriminator(heads: nnx.Module, gan: Discriminator) -> DiscriminatorState:
    """Creates the discriminator's state before its first update."""
    _, params, vectors = nnx.split(heads, nnx.Param, SpectralVector)
    params = nnx.to_pure_dict(params)
    return DiscriminatorState(
        params=params,
        vectors=nnx.to_pure_dict(vectors),
        opt_state=gan.optimizer.init(params),
        updates=jnp.int32(0),
    )


def decoder_gradient(
    state: TrainState,
    frozen: Tree,
    part: Tree,
    rae_graph: nnx.GraphDef,
    perceptual: Perceptual | None,
    gan: Discriminator | None,
) -> tuple[Scalars, Tree]:
    """Computes the losses of one micro-batch and the gradient of their weighted sum."""
    image, pullback = jax.vjp(
        lambda params: decode(rae_graph, params, frozen, part["tokens"]), state.params
    )

    def distance(image: Image) -> Float[Array, ""]:
        assert perceptual is not None
        return jnp.mean(nnx.merge(perceptual.graph, frozen["lpips"])(image, part["image"]))

    def gan_loss(image: Image) -> Float[Array, ""]:
        assert gan is not None
        assert state.discriminator is not None
        heads = state.discriminator
        return generator_loss(
            gan.logits(heads.params, heads.vectors, frozen, part["decoder_keys"], image)
        )

    loss, image_grad = jax.value_and_grad(lambda x: jnp.mean(jnp.abs(x - part["image"])))(image)
    metrics = {"l1": loss}
    if perceptual is not None:
        term = jax.value_and_grad(distance)
        lpips, lpips_grad = from_step(perceptual.start, state.step, term, zero_with_gradient, image)
        loss = loss + perceptual.weight * lpips
        image_grad = image_grad + perceptual.weight * lpips_grad
        metrics["lpips"] = lpips
    metrics["loss"] = loss
    if gan is not None:
        term = jax.value_and_grad(gan_loss)
        adversarial, gan_grad = from_step(gan.start, state.step, term, zero_with_gradient, image)
        last = [pullback(x)[0]["predict"]["kernel"] for x in (image_grad, gan_grad)]
        adaptive = jnp.where(state.step >= gan.start, adaptive_weight(*last), 0)
        image_grad += gan.weight * adaptive * gan_grad
        metrics |= {"gan": adversarial, "adaptive_weight": adaptive}
    return metrics, pullback(image_grad)[0]


def discriminator_update(
    old: DiscriminatorState,
    decoder: Tree,
    frozen: Tree,
    inputs: Tree,
    gan: Discriminator,
    accumulate_steps: int,
) -> tuple[DiscriminatorState, Scalars]:
    """Takes the power iterations and one optimizer step of the heads; `decoder` is fixed."""
    real_vectors = fake_vectors = power_iteration(old.params, old.vectors)
    if gan.iterate_per_pass:
        fake_vectors = power_iteration(old.params, real_vectors)

    def part_gradient(part: Tree) -> tuple[Scalars, Tree]:
        fake = quantize_uint8(gan.fakes(decoder, frozen, part))
        pairs = interleave(part["real_keys"], part["fake_keys"]), interleave(part["image"], fake)
        features = gan.describe(frozen, *pairs)  # one pass fills a GPU better than two
        real_features, fake_features = ([x[first::2] for x in features] for first in (0, 1))

        def loss(params: Tree) -> tuple[Float[Array, ""], Scalars]:
            real_logits = gan.judge(params, real_vectors, real_features)
            fake_logits = gan.judge(params, fake_vectors, fake_features)
            loss = gan.loss(real_logits, fake_logits)
            return loss, {
                "discriminator_loss": loss,
                "logits_real": jnp.mean(real_logits),
                "logits_fake": jnp.mean(fake_logits),
            }

        gradient, metrics = jax.grad(loss, has_aux=True)(old.params)
        return metrics, gradient

    metrics, gradient = mean_over_micro_batches(part_gradient, inputs, accumulate_steps)
    updates, opt_state = gan.optimizer.update(gradient, old.opt_state, old.params)
    new = DiscriminatorState(
        params=optax.apply_updates(old.params, updates),
        vectors=fake_vectors,
        opt_state=opt_state,
        updates=old.updates + 1,
    )
    return new, metrics | {
        "discriminator_gradient_norm": optax.tree.norm(gradient),
        "discriminator_lr": gan.schedule(old.updates),
    }


def from_step(
    start: int,
    step: Int[Array, ""],
    function: Callable[[Operand], Result],
    idle: Callable[[Operand], Result],
    operand: Operand,
) -> Result:
    """Calls `function` from step `start` on, and before `idle`, which has results of its shapes.

    From the first step on there is no condition: XLA does not optimize across one, and on CPUs
    LPIPS's convolutions are 20 times slower inside.
    """
    if start == 0:
        return function(operand)
    return jax.lax.cond(step >= start, function, idle, operand)


def zero_with_gradient(image: Image) -> tuple[Float[Array, ""], Image]:
    """Returns value and gradient of a term that has not started."""
    return jnp.float32(0), jnp.zeros_like(image)


def interleave(first: Shaped[Array, "B ..."], second: Shaped[Array, "B ..."]) -> Array:
    """Joins two batches row by row, so that rows stay on their devices."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def quantize_uint8(image: Image) -> Image:
    """Clips to [0, 1] and rounds to 8 bits, as the real images are."""
    return jnp.round(255 * jnp.clip(image, 0, 1)) / 255
