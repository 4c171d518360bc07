r"""Stage 1: reconstruct images from noise-augmented tokens of the frozen encoder.

    sigma_i ~ tau U[0, 1)                                                          (1)
    z_i     = tokens(x_i) + sigma_i n_i,          n_i ~ N(0, 1)                    (2)
    L_i     = mean |decode(z_i) - x_i| + w LPIPS(decode(z_i), x_i)                 (3)

A diffusion model never hits the encoder's outputs exactly; a decoder that has seen noisy tokens
forgives it (RAE paper, section 4.3: generation improves though reconstruction loses a little).
The paper writes |N(0, tau^2)| for (1); all released code, and so the released decoders, use a
uniform sigma. Tokens are the encoder's own, before any latent statistics.

With w = 0 the step of training/step.py minimizes (3). With w > 0, or with a discriminator besides,
the step is that of training/gan_step.py, and validation reports (3).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.objectives.base import Objective, PerSample, Tree


def add_noise(
    key: Key[Array, ""], tokens: Float[Array, "B N D"], *, tau: float
) -> Float[Array, "B N D"]:
    """Adds noise of a random level to each image's tokens, equations (1) and (2)."""
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
    """Makes the objective of equation (3).

    `params` are the decoder's; `frozen["rae"]` is an RAE without decoder (`encoder_graph`), which
    together with `params` makes a whole one (`rae_graph`); `frozen["lpips"]` is there if
    `lpips_graph` is. The inputs are the images, the noisy tokens and the clean ones.
    """

    def sample_inputs(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        tokens = nnx.merge(encoder_graph, frozen["rae"]).tokens(batch["image"])
        noisy = add_noise(key, tokens, tau=noise_tau)
        return {"image": batch["image"], "tokens": noisy, "clean_tokens": tokens}

    def loss(params: Tree, frozen: Tree, inputs: Tree) -> PerSample:
        image = decode(rae_graph, params, frozen, inputs["tokens"])
        error = jnp.mean(jnp.abs(image - inputs["image"]), axis=(1, 2, 3))
        if lpips_graph is None:
            return error, {}
        distance = nnx.merge(lpips_graph, frozen["lpips"])(image, inputs["image"])
        return error + lpips_weight * distance, {"l1": error, "lpips": distance}

    return Objective(sample_inputs, loss)


def decode(
    rae_graph: nnx.GraphDef, params: Tree, frozen: Tree, tokens: Float[Array, "B N D"]
) -> Float[Array, "B H W 3"]:
    """Decodes tokens to float32 images around [0, 1], not clipped, with the trained decoder."""
    return nnx.merge(rae_graph, frozen["rae"] | {"decoder": params}).decode_tokens(tokens)
