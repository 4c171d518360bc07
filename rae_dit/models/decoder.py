"""Vision-transformer decoder of RAE: encoder tokens to pixels.

It is the decoder of ViT-MAE without the masking: tokens are projected to the decoder's width, a
learned CLS token is set before them, positions are added, and each token that comes out of the
blocks becomes one patch of pixels. Positions start as sines and cosines (zeros for CLS); files and
checkpoints hold them, since training may have moved them.

Source: bytetriper/RAE `stage1/decoders`, after `transformers` `ViTMAEDecoder`; SEMANTICS 4.4.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, DecoderArchitecture
from rae_dit.models.layers import (
    LayerNorm,
    Linear,
    compute_dtype,
    make_constant,
    sincos_position_embedding,
    unpatchify,
    value_of,
)
from rae_dit.models.transformer import make_trunk, prepend


class Decoder(nnx.Module):
    """Maps tokens of an encoder to an image in the encoder's normalized pixel space.

    Args:
        architecture: sizes and switches.
        compute: how it computes.
        train_constants: train the positions too.
        rngs: where initial values come from.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(
        self,
        architecture: DecoderArchitecture,
        compute: Compute,
        *,
        train_constants: bool = False,
        rngs: nnx.Rngs,
    ):
        width, dtype = architecture.hidden_size, compute_dtype(compute)
        self.architecture = architecture
        self.in_width = architecture.in_width
        self.grid = architecture.grid
        self.patch_size = architecture.patch_size
        self.dtype = dtype
        self.embed = Linear(self.in_width, width, axes=(None, "embed"), dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(jnp.zeros((1, width)))
        self.position = make_constant(decoder_positions(width, self.grid), trained=train_constants)
        self.trunk = make_trunk(architecture, compute, rngs)
        self.norm = LayerNorm(width, eps=architecture.eps)
        self.predict = Linear(
            width, 3 * self.patch_size**2, axes=("embed", None), dtype=dtype, rngs=rngs
        )

    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B H W 3"]:
        """Decodes raw tokens (no latent statistics).

        Args:
            tokens: float32, raster order, as the encoder gives them.

        Returns:
            float32 images of `grid * patch_size` pixels a side, normalized as the encoder's
            input is and not clipped.

        Raises:
            ValueError: if there are not N = grid^2 tokens of width `in_width`.
        """
        expected = (self.grid**2, self.in_width)
        if tokens.shape[1:] != expected:
            raise ValueError(
                f"tokens: got shape {tokens.shape[1:]}; expected {expected}. Encode at "
                "the resolution that this decoder was made for"
            )
        x = prepend(self.cls_token[...], self.embed(jnp.asarray(tokens, self.dtype)))
        x = self.trunk(x + value_of(self.position).astype(self.dtype))
        patches = self.predict(self.norm(x[:, 1:])).astype(jnp.float32)
        return unpatchify(patches, self.patch_size, self.grid, self.grid)


def decoder_positions(width: int, grid: int, *, spacing: float = 1.0) -> Float[np.ndarray, "1+N D"]:
    """Returns initial positions of the CLS token (zeros) and the grid (sines and cosines).

    Args:
        width: D.
        grid: tokens a side; N = grid^2.
        spacing: distance of neighboring tokens: 1 in the reference, 16 / grid in diffusers, which
            is the same for 16 x 16 tokens only.
    """
    return np.pad(sincos_position_embedding(width, grid, grid, spacing=spacing), ((1, 0), (0, 0)))
