r"""What the decoder learns from: the frozen encoder's tokens, roughened by noise.

    sigma_i ~ tau U[0, 1)                                                          (1)
    z_i     = tokens(x_i) + sigma_i n_i,          n_i ~ N(0, 1)                    (2)
    L_i     = mean |decode(z_i) - x_i| + w LPIPS(decode(z_i), x_i)                 (3)

A diffusion model never hits the encoder's outputs exactly; a decoder that has seen noisy tokens
forgives it (RAE paper, section 4.3: generation improves though reconstruction loses a little).
The paper writes |N(0, tau^2)| for (1); all released code, and so the released decoders, use a
uniform sigma. Tokens are the encoder's own, before any latent statistics.

With w = 0 the step of training/step.py minimises (3). With w > 0, or with a discriminator besides,
it is that of adversarial.py, and (3) is what validation reports.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.objectives.base import Objective, PerSample, Tree


def add_noise(
    key: Key[Array, ""], tokens: Float[Array, "B N D"], *, tau: float
) -> Float[Array, "B N D"]:
    """Equations (1) and (2)."""
    level_key, noise_key = jax.random.split(key)
    sigma = tau * jax.random.uniform(level_key, (tokens.shape[0], 1, 1))
    return tokens + sigma * jax.random.normal(noise_key, tokens.shape)


def reconstruction(
    encoder_graph: nnx.GraphDef,
    rae_graph: nnx.GraphDef,
    lpips_graph: nnx.GraphDef | None,
    *,
    noise_tau: float,
    lpips_weight: float,
) -> Objective:
    """Stage 1 with the loss of equation (3).

    `params` are the decoder's; `frozen["rae"]` is an RAE without decoder (`encoder_graph`), which
    together with `params` makes a whole one (`rae_graph`); `frozen["lpips"]` is there if
    `lpips_graph` is. The example holds the images, the noisy tokens and the clean ones.
    """

    def draw(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        tokens = nnx.merge(encoder_graph, frozen["rae"]).tokens(batch["image"])
        noisy = add_noise(key, tokens, tau=noise_tau)
        return {"image": batch["image"], "tokens": noisy, "clean_tokens": tokens}

    def loss(params: Tree, frozen: Tree, example: Tree) -> PerSample:
        image = decode(rae_graph, params, frozen, example["tokens"])
        error = jnp.mean(jnp.abs(image - example["image"]), axis=(1, 2, 3))
        if lpips_graph is None:
            return error, {}
        distance = nnx.merge(lpips_graph, frozen["lpips"])(image, example["image"])
        return error + lpips_weight * distance, {"l1": error, "lpips": distance}

    return Objective(draw, loss)


def decode(
    rae_graph: nnx.GraphDef, params: Tree, frozen: Tree, tokens: Float[Array, "B N D"]
) -> Float[Array, "B H W 3"]:
    """Tokens -> float32 images around [0, 1], not clipped, by the decoder that is trained."""
    return nnx.merge(rae_graph, frozen["rae"] | {"decoder": params}).decode_tokens(tokens)
