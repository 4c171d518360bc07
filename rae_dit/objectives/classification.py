"""Linear probing: classify images by one linear layer on an encoder's mean patch token.

The CLS token is not used: not every encoder has one, and RAE drops it. With the encoder trained as
well (`classification`), the same objective makes a small representation encoder from labels, which
is how the quickstart gets one without downloading any.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from rae_dit.models.layers import Linear
from rae_dit.models.rae import RAE
from rae_dit.objectives.base import Objective, PerSample, Tree


class Classifier(nnx.Module):
    """Mean of an encoder's tokens, then one linear layer.

    Args:
        rae: an RAE with its encoder; a decoder is not needed.
        num_classes: number of classes K.
        rngs: where initial values come from.
    """

    def __init__(self, rae: RAE, num_classes: int, *, rngs: nnx.Rngs):
        self.rae = rae
        self.head = linear_head(rae.latent_shape[-1], num_classes, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        """Computes logits of images in [0, 1]."""
        return self.head(mean_token(self.rae, image))


def linear_head(width: int, num_classes: int, *, rngs: nnx.Rngs) -> Linear:
    """Makes the linear layer from a mean token to logits, float32."""
    return Linear(width, num_classes, axes=("embed", None), dtype=jnp.float32, rngs=rngs)


def mean_token(rae: RAE, image: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
    """Averages the patch tokens of each image in [0, 1]; no latent statistics."""
    return jnp.mean(rae.tokens(image), axis=1)


def classification(graph: nnx.GraphDef) -> Objective:
    """Makes the objective of a `Classifier`: encoder and head are trained together.

    `params` are the classifier's; nothing is frozen. Metrics are those of `cross_entropy`.
    """

    def sample_inputs(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        return batch

    def loss(params: Tree, frozen: Tree, inputs: Tree) -> PerSample:
        return cross_entropy(nnx.merge(graph, params)(inputs["image"]), inputs["label"])

    return Objective(sample_inputs, loss)


def probing(rae_graph: nnx.GraphDef, head_graph: nnx.GraphDef) -> Objective:
    """Makes the objective of a linear layer on a frozen encoder, which no gradient reaches.

    `params` are the layer's; `frozen` is an RAE without decoder. Metrics are those of
    `cross_entropy`.
    """

    def sample_inputs(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        token = mean_token(nnx.merge(rae_graph, frozen), batch["image"])
        return {"token": token, "label": batch["label"]}

    def loss(params: Tree, frozen: Tree, inputs: Tree) -> PerSample:
        return cross_entropy(nnx.merge(head_graph, params)(inputs["token"]), inputs["label"])

    return Objective(sample_inputs, loss)


def cross_entropy(logits: Float[Array, "B K"], label: Int[Array, " B"]) -> PerSample:
    """Returns cross entropies, and "accuracy" and "top5_accuracy", each 1 or 0 a sample.

    "top5_accuracy": the label is among the five likeliest classes; left out where there are five
    classes or fewer.
    """
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    hit = jnp.argmax(logits, axis=-1) == label
    metrics = {"accuracy": hit.astype(jnp.float32)}
    if logits.shape[-1] > 5:
        _, likeliest = jax.lax.top_k(logits, 5)
        among = jnp.any(likeliest == label[:, None], axis=-1)
        metrics["top5_accuracy"] = among.astype(jnp.float32)
    return entropy, metrics
