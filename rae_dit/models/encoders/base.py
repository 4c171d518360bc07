"""The frozen encoders of RAE: DINOv2 with registers, SigLIP / SigLIP2, and MAE.

All are plain vision transformers. They differ in the tokens set before the patches, in how a
position table of another size is interpolated, in LayerScale and in the form of GELU:

| family | before the patches | position table to another grid     | LayerScale | GELU  |
|--------|--------------------|------------------------------------|------------|-------|
| DINOv2 | CLS, 4 registers   | bicubic a = -1/2, antialiased      | yes        | erf   |
| SigLIP | nothing            | bicubic a = -3/4, not antialiased  | no         | tanh  |
| MAE    | CLS                | bicubic a = -3/4, not antialiased  | no         | erf   |

What RAE takes from each is the same: the patch tokens after a last LayerNorm *without* affine
parameters, so that every token has mean 0 and variance 1 (RAE paper, section 3).

Source: the `transformers` models `dinov2_with_registers`, `siglip_vision_model` and `vit_mae`
(MAE without masking, which keeps the patches in raster order); SEMANTICS 4.2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.layers import (
    Constant,
    Dtype,
    LayerNorm,
    Linear,
    gelu_exact,
    gelu_tanh,
    patchify,
    sincos_position_embedding,
)
from rae_dit.models.resize import resize_bicubic
from rae_dit.models.transformer import make_trunk, prepend


class VisionTransformer(nnx.Module):
    """What the three families share; `place` is what each of them defines.

    Args:
        input_size: side of the image in pixels; a multiple of `patch_size`.
        patch_size: side of a patch in pixels.
        hidden_size: width D.
        depth: number of blocks.
        num_heads: heads; they divide D.
        intermediate_size: hidden width of the MLPs.
        position_grid: side of the stored position table, in patches. It is interpolated when
            it differs from `input_size // patch_size`.
        eps: added to the variance in every norm.
        activation: pointwise function of the MLPs.
        attention: implementation (see `attention.dot_product_attention`).
        scan_layers: run the blocks under `lax.scan` instead of unrolled.
        remat: what the backward pass recomputes ("none", "dots", "full").
        dtype: compute dtype; parameters are float32.
        rngs: where initial values come from.

    Raises:
        ValueError: if patches do not tile the image or heads do not divide the width.
    """

    layer_scale = False

    def __init__(
        self,
        *,
        input_size: int,
        patch_size: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        intermediate_size: int,
        position_grid: int,
        eps: float,
        activation: Callable[[Array], Array],
        attention: str = "auto",
        scan_layers: bool = True,
        remat: str = "none",
        dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if input_size % patch_size:
            lower = input_size // patch_size * patch_size
            raise ValueError(
                f"Patches of {patch_size} pixels do not tile an input of {input_size}; "
                f"use an input size of {lower} or {lower + patch_size}."
            )
        self.input_size = input_size
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        self.grid = input_size // patch_size
        self.position_grid = position_grid
        self.dtype = dtype
        self.embed = Linear(
            3 * patch_size**2, hidden_size, axes=(None, "embed"), dtype=dtype, rngs=rngs
        )
        self.trunk = make_trunk(
            hidden_size,
            depth,
            num_heads,
            intermediate_size=intermediate_size,
            activation=activation,
            eps=eps,
            layer_scale=self.layer_scale,
            attention=attention,
            scan_layers=scan_layers,
            remat=remat,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(hidden_size, eps=eps, affine=False)

    def __call__(self, image: Float[Array, "B S S 3"]) -> Float[Array, "B N D"]:
        """Encodes images that are already resized and normalised.

        Args:
            image: float32, `input_size` pixels a side, in the range the family was trained on.

        Returns:
            float32 patch tokens in raster order, each with mean 0 and variance 1.

        Raises:
            ValueError: if the images have another size.
        """
        expected = (self.input_size, self.input_size, 3)
        if image.shape[1:] != expected:
            raise ValueError(
                f"The encoder got images of shape {image.shape[1:]} and expected {expected}; "
                "resize them first, or use RAE.tokens, which does."
            )
        x = self.place(self.embed(patchify(jnp.asarray(image, self.dtype), self.patch_size)))
        x = self.trunk(x)[:, -(self.grid**2) :]
        return self.norm(x.astype(jnp.float32))

    def place(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Adds positions to the patch embeddings and sets the family's tokens before them."""
        raise NotImplementedError


class DINOv2(VisionTransformer):
    """DINOv2 with registers (`dinov2_with_registers`): CLS and registers before the patches.

    Args:
        num_registers: number of register tokens, which carry no position.
        **trunk: the arguments of `VisionTransformer`.
    """

    layer_scale = True

    def __init__(
        self,
        *,
        num_registers: int = 4,
        eps: float = 1e-6,
        activation: Callable[[Array], Array] = gelu_exact,
        rngs: nnx.Rngs,
        **trunk: Any,
    ):
        super().__init__(eps=eps, activation=activation, rngs=rngs, **trunk)
        width = self.hidden_size
        self.cls_token = small_normal((1, width), rngs)
        self.registers = small_normal((num_registers, width), rngs)
        self.position = small_normal((1 + self.position_grid**2, width), rngs)
        # Only DINOv2's own training used it; kept so that an exported file is a full one.
        self.mask_token = Constant(jnp.zeros((1, width)))

    def place(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """[CLS + p_0, registers, patches + p_1..N]; the registers have no position."""
        position = self.position[...]
        grid = position[1:].reshape(self.position_grid, self.position_grid, -1)
        if self.position_grid != self.grid:
            shape = (self.grid, self.grid, self.hidden_size)
            exact = jax.lax.Precision.HIGHEST
            grid = jax.image.resize(grid, shape, "cubic", antialias=True, precision=exact)
        x = patches + grid.reshape(self.grid**2, -1).astype(patches.dtype)
        first = [self.cls_token[...] + position[:1], self.registers[...]]
        return prepend(jnp.concatenate(first), x)


class SigLIP(VisionTransformer):
    """The vision tower of SigLIP and fixed-resolution SigLIP2 (`siglip_vision_model`).

    Args:
        **trunk: the arguments of `VisionTransformer`.
    """

    def __init__(
        self,
        *,
        eps: float = 1e-6,
        activation: Callable[[Array], Array] = gelu_tanh,
        rngs: nnx.Rngs,
        **trunk: Any,
    ):
        super().__init__(eps=eps, activation=activation, rngs=rngs, **trunk)
        self.position = small_normal((self.position_grid**2, self.hidden_size), rngs)

    def place(self, patches: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Patches plus their positions; there is no other token."""
        return patches + interpolate(self.position[...], self.grid).astype(patches.dtype)


class MAE(VisionTransformer):
    """The encoder of ViT-MAE (`vit_mae`), nothing masked; its sine-cosine positions are fixed.

    Args:
        **trunk: the arguments of `VisionTransformer`.
    """

    def __init__(
        self,
        *,
        eps: float = 1e-12,
        activation: Callable[[Array], Array] = gelu_exact,
        rngs: nnx.Rngs,
        **trunk: Any,
    ):
        super().__init__(eps=eps, activation=activation, rngs=rngs, **trunk)
        self.cls_token = small_normal((1, self.hidden_size), rngs)
        table = sincos_position_embedding(self.hidden_size, self.position_grid, self.position_grid)
        # Fixed, yet loaded: released files carry the table, and need not have ours to the bit.
        self.position = Constant(jnp.asarray(np.pad(table, ((1, 0), (0, 0)))))

    def place(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """[CLS + p_0, patches + p_1..N]."""
        position = jax.lax.stop_gradient(self.position[...])
        x = patches + interpolate(position[1:], self.grid).astype(patches.dtype)
        return prepend(self.cls_token[...] + position[:1], x)


def small_normal(shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Param:
    """A table of tokens or positions, drawn from N(0, 0.02^2)."""
    return nnx.Param(0.02 * rngs.params.normal(shape))


def interpolate(table: Float[Array, "M D"], grid: int) -> Float[Array, "N D"]:
    """Resizes a square table of positions to `grid` x `grid` with torch's bicubic kernel."""
    side = round(table.shape[0] ** 0.5)
    table = table.reshape(1, side, side, -1)
    return resize_bicubic(table, grid, grid).reshape(grid**2, -1)
