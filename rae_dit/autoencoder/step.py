r"""What the decoder learns from: the frozen encoder's tokens, roughened by noise.

    sigma_i ~ tau U[0, 1)                                                          (1)
    z_i     = tokens(x_i) + sigma_i n_i,          n_i ~ N(0, 1)                    (2)
    L_i     = mean |decode(z_i) - x_i|                                             (3)

A diffusion model never hits the encoder's outputs exactly; a decoder that has seen noisy tokens
forgives it (RAE paper, section 4.3: generation improves though reconstruction loses a little).
The paper writes |N(0, tau^2)| for (1); all released code, and so the released decoders, use a
uniform sigma. Tokens are the encoder's own, before any latent statistics.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.training.objective import Objective, PerSample, Tree


def add_noise(
    key: Key[Array, ""], tokens: Float[Array, "B N D"], *, tau: float
) -> Float[Array, "B N D"]:
    """Equations (1) and (2)."""
    level_key, noise_key = jax.random.split(key)
    sigma = tau * jax.random.uniform(level_key, (tokens.shape[0], 1, 1))
    return tokens + sigma * jax.random.normal(noise_key, tokens.shape)


def reconstruction(
    encoder_graph: nnx.GraphDef, rae_graph: nnx.GraphDef, *, noise_tau: float
) -> Objective:
    """Stage 1 with the L1 loss of equation (3).

    `params` are the decoder's; `frozen` is an RAE without decoder (`encoder_graph`), which together
    with `params` makes a whole one (`rae_graph`).
    """

    def draw(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        tokens = nnx.merge(encoder_graph, frozen).tokens(batch["image"])
        return {"image": batch["image"], "tokens": add_noise(key, tokens, tau=noise_tau)}

    def loss(params: Tree, frozen: Tree, example: Tree) -> PerSample:
        rae = nnx.merge(rae_graph, frozen | {"decoder": params})
        error = rae.decode_tokens(example["tokens"]) - example["image"]
        return jnp.mean(jnp.abs(error), axis=(1, 2, 3)), {}

    return Objective(draw, loss)
