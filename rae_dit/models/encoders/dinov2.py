"""DINOv2 with registers: CLS and registers before the patches, LayerScale, exact GELU.

A position table of another size is interpolated with Keys' bicubic kernel, a = -1/2, antialiased.

Source: `dinov2_with_registers` in `transformers`; SEMANTICS 4.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.encoders.base import VisionTransformer, small_normal
from rae_dit.models.encoders.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DiffusersEncoder,
    EncoderFamily,
    HuggingFaceEncoder,
    TensorNames,
)
from rae_dit.models.layers import Constant
from rae_dit.models.transformer import prepend


class DINOv2(VisionTransformer):
    """DINOv2 with registers; arguments and errors are those of `VisionTransformer`."""

    def __init__(self, architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        super().__init__(architecture, compute, rngs=rngs)
        width = architecture.hidden_size
        self.cls_token = small_normal((1, width), rngs)
        self.registers = small_normal((architecture.num_registers, width), rngs)
        self.position = small_normal((1 + architecture.position_grid**2, width), rngs)
        # Only DINOv2's own training used it; kept so that an exported file is a full one.
        self.mask_token = Constant(jnp.zeros((1, width)))

    def embed_tokens(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Returns [CLS + p_0, registers, patches + p_1..N]; registers have no position."""
        position = self.position[...]
        side = self.architecture.position_grid
        grid = position[1:].reshape(side, side, -1)
        if side != self.grid:
            shape = (self.grid, self.grid, self.hidden_size)
            exact = jax.lax.Precision.HIGHEST
            grid = jax.image.resize(grid, shape, "cubic", antialias=True, precision=exact)
        x = patches + grid.reshape(self.grid**2, -1).astype(patches.dtype)
        first = [self.cls_token[...] + position[:1], self.registers[...]]
        return prepend(jnp.concatenate(first), x)


def read_sizes(config: Any) -> dict[str, Any]:
    """Reads MLP width and registers off a config."""
    if config.use_swiglu_ffn:
        raise ValueError("use_swiglu_ffn: got true (DINOv2 of the giant size); expected false")
    return {
        "intermediate_size": int(config.hidden_size * config.mlp_ratio),
        "num_registers": config.num_register_tokens,
    }


DINOV2 = EncoderFamily(
    name="dinov2",
    module=DINOv2,
    num_cls_tokens=1,
    activation="gelu",
    eps=1e-6,
    layer_scale=True,
    image_mean=IMAGENET_MEAN,
    image_std=IMAGENET_STD,
    huggingface=HuggingFaceEncoder(
        model_types=("dinov2_with_registers",),
        refused_types={
            "dinov2": "got DINOv2 without registers; expected the one with them, such as "
            "facebook/dinov2-with-registers-base"
        },
        sizes=read_sizes,
        defaults={
            "mlp_ratio": 4.0,
            "layer_norm_eps": 1e-6,
            "use_swiglu_ffn": False,
            "num_register_tokens": 4,
        },
        aliases={"Dinov2withNorm": "facebook/dinov2-with-registers-base"},
        tensors=TensorNames(
            tower="dinov2_with_registers",
            tokens={
                "cls_token": "embeddings.cls_token",
                "registers": "embeddings.register_tokens",
                "position": "embeddings.position_embeddings",
            },
            tables={"mask_token": "embeddings.mask_token"},
            blocks="encoder.layer.{}",
            norms=("norm1", "norm2"),
            scales={"scale1": "layer_scale1.lambda1", "scale2": "layer_scale2.lambda1"},
            unused=r"(layernorm|classifier)\..*",
        ),
    ),
    diffusers=DiffusersEncoder(
        encoder_type="dinov2",
        position_grid=37,
        num_registers=4,
        intermediate_size=lambda width: 4 * width,
    ),
)
