"""Linear probing: how well one linear layer reads classes off an encoder's tokens.

With the encoder trained as well, the same act makes a small representation encoder from labels;
this is how the quickstart gets one without downloading any.
"""

import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.models.layers import Linear
from rae_dit.models.rae import RAE
from rae_dit.training.objective import Objective, PerSample, Tree


class Classifier(nnx.Module):
    """Mean of an encoder's tokens, then one linear layer.

    Args:
        rae: an RAE with its encoder; a decoder is not needed.
        num_classes: number of classes K.
        rngs: where initial values come from.
    """

    def __init__(self, rae: RAE, num_classes: int, *, rngs: nnx.Rngs):
        width = rae.latent_shape[-1]
        self.rae = rae
        self.head = Linear(width, num_classes, axes=("embed", None), dtype=jnp.float32, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        """Images in [0, 1] -> logits."""
        return self.head(jnp.mean(self.rae.tokens(image), axis=1))


def classification(graph: nnx.GraphDef) -> Objective:
    """Cross entropy of a `Classifier`, encoder and head trained together.

    `params` are the classifier's; nothing is frozen. The metric "accuracy" is 1 or 0 a sample.
    """

    def draw(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        return batch

    def loss(params: Tree, frozen: Tree, example: Tree) -> PerSample:
        logits = nnx.merge(graph, params)(example["image"])
        label = example["label"]
        hit = jnp.argmax(logits, axis=-1) == label
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return entropy, {"accuracy": hit.astype(jnp.float32)}

    return Objective(draw, loss)
