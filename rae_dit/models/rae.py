r"""Representation autoencoder: images in [0, 1] <-> normalized latents.

With R the resize to the encoder's input, m and s the encoder's image constants, E the encoder and
D the decoder, and with mu and nu the mean and variance of each latent element over a data set,

    z = (E((R(x) - m) / s) - mu) / sqrt(nu + 1e-5)                          (1)
    x = D(z sqrt(nu + 1e-5) + mu) s + m                                     (2)

Resizing, normalization and statistics are inside these two calls and nowhere else. RAEv2's decoders
give pixels in [0, 1] themselves (`pixels="unit"`): x = D(...) then.

Source: bytetriper/RAE `stage1/rae.py`; SEMANTICS 4.1, 4.3.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from rae_dit.architecture import Pixels, Triple
from rae_dit.models.decoder import Decoder
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.models.layers import Constant
from rae_dit.models.resize import resize_bicubic

VARIANCE_EPS = 1e-5


def latent_scale(variance: ArrayLike | None) -> np.ndarray | None:
    """Returns the divisor of (1), sqrt(variance + 1e-5), in float64; None for None."""
    return None if variance is None else np.sqrt(np.asarray(variance, np.float64) + VARIANCE_EPS)


class RAE(nnx.Module):
    """A frozen encoder and a decoder around one latent space.

    Args:
        encoder: gives [B, h*w, D] tokens for images of `encoder.input_size`.
        decoder: gives images for such tokens; None where only `encode` is needed.
        image_mean: per-channel mean m of the encoder's training images, in [0, 1].
        image_std: per-channel deviation s.
        latent_mean: mean of every latent element, broadcastable to [h, w, D]; None for raw
            latents (stage-1 training).
        latent_variance: their variance, given exactly when the mean is.
        pixels: what the decoder gives: "normalized" as the encoder's input, or "unit" for [0, 1].

    Raises:
        ValueError: if only one statistic is given, if their shape does not fit, or if the decoder
            expects other tokens than the encoder gives.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        decoder: Decoder | None,
        *,
        image_mean: Triple,
        image_std: Triple,
        latent_mean: ArrayLike | None,
        latent_variance: ArrayLike | None,
        pixels: Pixels = "normalized",
    ):
        self.encoder = encoder
        self.decoder = decoder
        self.image_mean = image_mean
        self.image_std = image_std
        self.pixels = pixels
        if decoder is not None and (decoder.grid, decoder.in_width) != (
            encoder.grid,
            encoder.hidden_size,
        ):
            raise ValueError(
                f"decoder: got one of {decoder.grid}x{decoder.grid} tokens of width "
                f"{decoder.in_width}; expected {encoder.grid}x{encoder.grid} of width "
                f"{encoder.hidden_size}, for this encoder and input size"
            )
        if (latent_mean is None) != (latent_variance is None):
            raise ValueError(
                "latent_mean, latent_variance: got one of the two; expected both, or None for both"
            )
        self.latent_mean = self.statistic("latent_mean", latent_mean)
        self.latent_scale = self.statistic("latent_variance", latent_scale(latent_variance))

    def statistic(self, name: str, value: ArrayLike | None) -> Constant | None:
        """Makes a float32 leaf [h, w, D] of a latent statistic, which checkpoints then hold."""
        if value is None:
            return None
        value = np.asarray(value)
        try:
            value = np.broadcast_to(value, self.latent_shape)
        except ValueError:
            raise ValueError(
                f"{name}: got shape {value.shape}; expected one that broadcasts to latents "
                f"{self.latent_shape} (h, w, D), as of this encoder and input size"
            ) from None
        return Constant(jnp.asarray(value, jnp.float32))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, D) of one latent."""
        return self.encoder.grid, self.encoder.grid, self.encoder.hidden_size

    def tokens(self, image: Float[ArrayLike, "B H W 3"]) -> Float[Array, "B N D"]:
        """Encodes images in [0, 1] of any size to float32 tokens, raster order, not normalized."""
        side = self.encoder.input_size
        image = resize_bicubic(jnp.asarray(image, jnp.float32), side, side)
        mean, std = jnp.asarray(self.image_mean), jnp.asarray(self.image_std)
        return self.encoder((image - mean) / std)

    def encode(self, image: Float[ArrayLike, "B H W 3"]) -> Float[Array, "B h w D"]:
        """Encodes images in [0, 1] of any size to float32 latents, normalized: equation (1)."""
        tokens = self.tokens(image)
        latent = tokens.reshape(tokens.shape[0], *self.latent_shape)
        if self.latent_mean is not None and self.latent_scale is not None:
            latent = (latent - self.latent_mean[...]) / self.latent_scale[...]
        return latent

    def decode(self, latent: Float[ArrayLike, "B h w D"]) -> Float[Array, "B H W 3"]:
        """Decodes latents to float32 images around [0, 1], not clipped: equation (2).

        Raises:
            ValueError: if this RAE has no decoder or the latents have another shape.
        """
        values = jnp.asarray(latent, jnp.float32)
        if values.shape[1:] != self.latent_shape:
            raise ValueError(
                f"latent: got shape {values.shape[1:]}; expected {self.latent_shape} (h, w, D), so "
                "transpose NCHW latents first"
            )
        if self.latent_mean is not None and self.latent_scale is not None:
            values = values * self.latent_scale[...] + self.latent_mean[...]
        return self.decode_tokens(values.reshape(values.shape[0], -1, values.shape[-1]))

    def decode_tokens(self, tokens: Float[ArrayLike, "B N D"]) -> Float[Array, "B H W 3"]:
        """Decodes tokens that are not normalized to float32 images around [0, 1], not clipped.

        Raises:
            ValueError: if this RAE has no decoder.
        """
        if self.decoder is None:
            raise ValueError("decoder: got None; expected an RAE that was built or loaded with one")
        image = self.decoder(jnp.asarray(tokens, jnp.float32))
        if self.pixels == "unit":
            return image
        return image * jnp.asarray(self.image_std) + jnp.asarray(self.image_mean)
