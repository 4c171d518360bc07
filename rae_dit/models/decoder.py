"""The decoder of RAE: a vision transformer from encoder tokens back to pixels.

It is the decoder of ViT-MAE without the masking: tokens are projected to the decoder's width, a
learned CLS token is set before them, fixed sine-cosine positions are added (zero for CLS), and
each token that comes out of the blocks becomes one patch of pixels.

Source: bytetriper/RAE `stage1/decoders`, after `transformers` `ViTMAEDecoder`; SEMANTICS 4.4.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.layers import (
    Dtype,
    LayerNorm,
    Linear,
    gelu_exact,
    sincos_position_embedding,
    unpatchify,
)
from rae_dit.models.transformer import make_trunk, prepend


class Decoder(nnx.Module):
    """Tokens of an encoder -> an image in the encoder's normalised pixel space.

    Args:
        in_width: width of the incoming tokens.
        grid: tokens a side; N = grid^2.
        patch_size: pixels a side that each token becomes.
        hidden_size: width D; a multiple of 4.
        depth: number of blocks.
        num_heads: heads; they divide D.
        intermediate_size: hidden width of the MLPs.
        position_spacing: distance of neighbouring tokens in the position code. 1 in the
            reference; 16 / grid in diffusers, which is the same for 16 x 16 tokens only.
        eps: added to the variance in every norm.
        attention: implementation (see `attention.dot_product_attention`).
        scan_layers: run the blocks under `lax.scan` instead of unrolled.
        remat: what the backward pass recomputes ("none", "dots", "full").
        dtype: compute dtype; parameters are float32.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        *,
        in_width: int,
        grid: int,
        patch_size: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        intermediate_size: int,
        position_spacing: float = 1.0,
        eps: float = 1e-12,
        attention: str = "auto",
        scan_layers: bool = True,
        remat: str = "none",
        dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_width = in_width
        self.grid = grid
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        self.position_spacing = position_spacing
        self.dtype = dtype
        self.embed = Linear(in_width, hidden_size, axes=(None, "embed"), dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(jnp.zeros((1, hidden_size)))
        self.trunk = make_trunk(
            hidden_size,
            depth,
            num_heads,
            intermediate_size=intermediate_size,
            activation=gelu_exact,
            eps=eps,
            layer_scale=False,
            attention=attention,
            scan_layers=scan_layers,
            remat=remat,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(hidden_size, eps=eps)
        self.predict = Linear(
            hidden_size, 3 * patch_size**2, axes=("embed", None), dtype=dtype, rngs=rngs
        )

    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B H W 3"]:
        """Decodes raw tokens (no latent statistics).

        Args:
            tokens: float32, raster order, as the encoder gives them.

        Returns:
            float32 images of `grid * patch_size` pixels a side, normalised as the encoder's
            input is and not clipped.

        Raises:
            ValueError: if there are not N = grid^2 tokens of width `in_width`.
        """
        expected = (self.grid**2, self.in_width)
        if tokens.shape[1:] != expected:
            raise ValueError(
                f"The decoder got tokens of shape {tokens.shape[1:]} and expected {expected}; "
                "encode at the resolution this decoder was made for."
            )
        position = decoder_positions(self.hidden_size, self.grid, self.position_spacing)
        x = prepend(self.cls_token[...], self.embed(jnp.asarray(tokens, self.dtype)))
        x = self.trunk(x + jnp.asarray(position, self.dtype))
        patches = self.predict(self.norm(x[:, 1:])).astype(jnp.float32)
        return unpatchify(patches, self.patch_size, self.grid, self.grid)


def decoder_positions(width: int, grid: int, spacing: float) -> Float[np.ndarray, "1+N D"]:
    """The fixed positions of the CLS token (zeros) and of the grid (sines and cosines)."""
    return np.pad(sincos_position_embedding(width, grid, grid, spacing=spacing), ((1, 0), (0, 0)))
