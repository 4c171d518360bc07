"""Linear probing: how well one linear layer reads classes off an encoder's tokens.

What is read is the mean of an image's patch tokens: no CLS token, which not every encoder has, and
which RAE drops. With the encoder trained as well, the same act makes a small representation encoder
from labels; this is how the quickstart gets one without downloading any.
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
        """Images in [0, 1] -> logits."""
        return self.head(mean_token(self.rae, image))


def linear_head(width: int, num_classes: int, *, rngs: nnx.Rngs) -> Linear:
    """The linear layer from a mean token to logits, float32."""
    return Linear(width, num_classes, axes=("embed", None), dtype=jnp.float32, rngs=rngs)


def mean_token(rae: RAE, image: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
    """Images in [0, 1] -> the mean of each one's patch tokens, without latent statistics."""
    return jnp.mean(rae.tokens(image), axis=1)


def classification(graph: nnx.GraphDef) -> Objective:
    """Cross entropy of a `Classifier`, encoder and head trained together.

    `params` are the classifier's; nothing is frozen. Metrics are those of `judge`.
    """

    def draw(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        return batch

    def loss(params: Tree, frozen: Tree, example: Tree) -> PerSample:
        return judge(nnx.merge(graph, params)(example["image"]), example["label"])

    return Objective(draw, loss)


def probing(rae_graph: nnx.GraphDef, head_graph: nnx.GraphDef) -> Objective:
    """Cross entropy of a linear layer on a frozen encoder: no gradient reaches it.

    `params` are the layer's; `frozen` is an RAE without decoder. Metrics are those of `judge`.
    """

    def draw(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        token = mean_token(nnx.merge(rae_graph, frozen), batch["image"])
        return {"token": token, "label": batch["label"]}

    def loss(params: Tree, frozen: Tree, example: Tree) -> PerSample:
        return judge(nnx.merge(head_graph, params)(example["token"]), example["label"])

    return Objective(draw, loss)


def judge(logits: Float[Array, "B K"], label: Int[Array, " B"]) -> PerSample:
    """Cross entropy; "accuracy" and "top5_accuracy", each 1 or 0 a sample.

    The latter says whether the label is among the five likeliest classes, and is left out where
    there are five or fewer.
    """
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    hit = jnp.argmax(logits, axis=-1) == label
    metrics = {"accuracy": hit.astype(jnp.float32)}
    if logits.shape[-1] > 5:
        _, likeliest = jax.lax.top_k(logits, 5)
        among = jnp.any(likeliest == label[:, None], axis=-1)
        metrics["top5_accuracy"] = among.astype(jnp.float32)
    return entropy, metrics
