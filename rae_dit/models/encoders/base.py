"""The vision transformer that all encoders share.

RAE takes the same from each of them: the patch tokens after a last LayerNorm *without* affine
parameters, so that every token has mean 0 and variance 1 (RAE paper, section 3). RAEv2 reads
several blocks: with h_l the output of block l, patches alone, and L the last of the layers,

    z = mean over layers of norm(h_l) + mean over patches of norm(h_L)                    (1)

where the second term, one vector for each image, is there if `add_mean` is (RAEV2.md 1).
"""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.layers import LayerNorm, Linear, compute_dtype, patchify
from rae_dit.models.resize import resize_bicubic
from rae_dit.models.rotary import Rope
from rae_dit.models.transformer import make_trunk


class VisionTransformer(nnx.Module):
    """Base class of encoders; a family adds its token and position tables and `embed_tokens`.

    Args:
        architecture: sizes and switches.
        compute: how it computes.
        rngs: where initial values come from.

    Raises:
        ValueError: if patches do not tile the image or heads do not divide the width.
    """

    def __init__(self, architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        input_size, patch_size = architecture.input_size, architecture.patch_size
        width = architecture.hidden_size
        if input_size % patch_size:
            lower = input_size // patch_size * patch_size
            raise ValueError(
                f"input_size: got {input_size}; expected a multiple of patch_size = {patch_size} "
                f"such as {lower} or {lower + patch_size}"
            )
        self.architecture = architecture
        self.input_size = input_size
        self.patch_size = patch_size
        self.hidden_size = width
        self.grid = input_size // patch_size
        self.dtype = compute_dtype(compute)
        self.embed = Linear(
            3 * patch_size**2,
            width,
            axes=(None, "embed"),
            matrices=0,
            dtype=self.dtype,
            rngs=rngs,
        )
        self.trunk = make_trunk(architecture, compute, rngs)
        self.norm = LayerNorm(width, eps=architecture.eps, affine=False)

    def __call__(self, image: Float[Array, "B S S 3"]) -> Float[Array, "B N D"]:
        """Encodes images that are already resized and normalized.

        Args:
            image: float32, `input_size` pixels a side, in the range the family was trained on.

        Returns:
            float32 patch tokens in raster order: equation (1). Of the last block alone, each has
            mean 0 and variance 1.

        Raises:
            ValueError: if the images have another size.
        """
        layers, depth = self.architecture.layers, self.architecture.depth
        if layers in ((), (depth - 1,)):
            blocks = [self.patches_of(self.trunk(self.embed_image(image), *self.rope()))]
        else:
            blocks = self.block_outputs(image, layers)
        normalized = [self.norm(tokens.astype(jnp.float32)) for tokens in blocks]
        tokens = functools.reduce(jnp.add, normalized) / len(normalized)
        if self.architecture.add_mean:
            tokens = tokens + jnp.mean(normalized[-1], axis=1, keepdims=True)
        return tokens

    def block_outputs(
        self, image: Float[Array, "B S S 3"], layers: tuple[int, ...]
    ) -> list[Float[Array, "B N D"]]:
        """Encodes images and returns the patch tokens after several blocks, not normalized.

        Args:
            image: as `__call__` takes it.
            layers: numbers of the blocks, from 0; may repeat.

        Returns:
            Tokens in the compute dtype, one array for each of `layers`; blocks after the last of
            them are not computed.

        Raises:
            ValueError: if the images have another size.
        """
        outputs = self.trunk.outputs(self.embed_image(image), layers, *self.rope())
        return [self.patches_of(x) for x in outputs]

    def embed_image(self, image: Float[Array, "B S S 3"]) -> Float[Array, "B M D"]:
        """Returns the sequence that enters the first block."""
        expected = (self.input_size, self.input_size, 3)
        if image.shape[1:] != expected:
            raise ValueError(
                f"image: got shape {image.shape[1:]}; expected {expected}. Resize images "
                "first, or use RAE.tokens, which does"
            )
        image = jnp.asarray(image, self.dtype)
        return self.embed_tokens(self.embed(patchify(image, self.patch_size)))

    def embed_tokens(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Adds positions to patch embeddings and prepends the family's other tokens."""
        raise NotImplementedError

    def rope(self) -> Rope | tuple[()]:
        """Returns cos and sin that every block rotates queries and keys by; empty for none."""
        return ()

    def patches_of(self, x: Float[Array, "B M D"]) -> Float[Array, "B N D"]:
        """Drops the tokens before the patches."""
        return x[:, -(self.grid**2) :]


def small_normal(shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Param:
    """Draws a table of tokens or positions from N(0, 0.02^2)."""
    return nnx.Param(0.02 * rngs.params.normal(shape))


def interpolate(table: Float[Array, "M D"], grid: int) -> Float[Array, "N D"]:
    """Resizes a square table of positions to `grid` x `grid` with torch's bicubic kernel."""
    side = round(table.shape[0] ** 0.5)
    table = table.reshape(1, side, side, -1)
    return resize_bicubic(table, grid, grid).reshape(grid**2, -1)
