r"""Adversarial losses (hinge, vanilla) and VQGAN's adaptive weight.

With r the logits of real images and f those of reconstructions, means over all of them, the
discriminator minimizes one of

    hinge:    mean max(0, 1 - r) / 2 + mean max(0, 1 + f) / 2                              (1)
    vanilla:  mean log(1 + e^-r) / 2 + mean log(1 + e^f) / 2                               (2)

and the decoder minimizes L + w lambda G, where L is its reconstruction loss and

    G      = -mean f                                                                       (3)
    lambda = min(|dL/dW| / (|dG/dW| + 1e-6), 1e4),                                         (4)

W being the kernel of the decoder's last layer and lambda a constant for the gradient: it makes both
losses pull equally hard where they enter the network.

Source: bytetriper/RAE, after VQGAN (arXiv 2012.09841, equation 7); SEMANTICS 4.8.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_WEIGHT = 1e4
NORM_EPS = 1e-6


def hinge(real: Float[Array, "B L"], fake: Float[Array, "B L"]) -> Float[Array, ""]:
    """Computes the discriminator's hinge loss, equation (1)."""
    return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2


def vanilla(real: Float[Array, "B L"], fake: Float[Array, "B L"]) -> Float[Array, ""]:
    """Computes the discriminator's vanilla loss, equation (2)."""
    return (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2


def generator_loss(fake: Float[Array, "B L"]) -> Float[Array, ""]:
    """Computes the decoder's adversarial loss, equation (3)."""
    return -jnp.mean(fake)


def adaptive_weight(
    reconstruction: Float[Array, "..."], gan: Float[Array, "..."]
) -> Float[Array, ""]:
    """Computes equation (4) from the two gradients at the last kernel."""
    ratio = jnp.linalg.norm(reconstruction) / (jnp.linalg.norm(gan) + NORM_EPS)
    return jnp.clip(ratio, 0, LARGEST_WEIGHT)
