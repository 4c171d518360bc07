r"""DINOv3: CLS and registers before the patches, rotary positions on the patches, LayerScale.

There is no position table. Patch (i, j) of a G x G grid has the coordinates

    u = 2 (i + 1/2) / G - 1,        v = 2 (j + 1/2) / G - 1,        in (-1, 1)            (1)

and in every block the pair (x_m, x_{m + Dh/2}) of a head's query or key is rotated by

    2 pi u 100^(-4 m / Dh)  for m < Dh/4,   by v in place of u for the others          (2)

so any grid is covered by the same range of angles. CLS and registers are not rotated.

Source: facebookresearch/dinov3 `RopePositionEmbedding`, `dinov3_vit` in `transformers`; RAEV2.md 1.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.encoders.base import VisionTransformer, small_normal
from rae_dit.models.encoders.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EncoderFamily,
    HuggingFaceEncoder,
    TensorNames,
)
from rae_dit.models.layers import Constant
from rae_dit.models.rotary import Rope
from rae_dit.models.transformer import prepend

ROPE_BASE = 100.0


class DINOv3(VisionTransformer):
    """DINOv3's vision transformer; arguments and errors are those of `VisionTransformer`."""

    def __init__(self, architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        super().__init__(architecture, compute, rngs=rngs)
        width = architecture.hidden_size
        self.cls_token = small_normal((1, width), rngs)
        self.registers = small_normal((architecture.num_registers, width), rngs)
        # Only DINOv3's own training used it; kept so that an exported file is a full one.
        self.mask_token = Constant(jnp.zeros((1, width)))

    def embed_tokens(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Returns [CLS, registers, patches]."""
        return prepend(jnp.concatenate([self.cls_token[...], self.registers[...]]), patches)

    def rope(self) -> Rope:
        """Returns cos and sin of the whole sequence, float32 [1 + R + N, Dh]: equation (2)."""
        architecture = self.architecture
        angle = patch_angles(architecture.hidden_size // architecture.num_heads, self.grid)
        angle = np.pad(angle, ((1 + architecture.num_registers, 0), (0, 0)))
        return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def patch_angles(head_width: int, grid: int) -> Float[np.ndarray, "N Dh"]:
    """Returns the rotary angles of a `grid` x `grid` image in raster order: equations (1), (2)."""
    coordinate = 2 * (np.arange(grid) + 0.5) / grid - 1
    frequency = 2 * np.pi * ROPE_BASE ** (-4 * np.arange(head_width // 4) / head_width)
    row, column = np.meshgrid(coordinate, coordinate, indexing="ij")
    half = [np.outer(axis.reshape(-1), frequency) for axis in (row, column)]
    return np.concatenate([*half, *half], axis=1)


def read_sizes(config: Any) -> dict[str, Any]:
    """Reads MLP, gated or not, and registers off a config."""
    gated: dict[str, Any] = {}
    if config.use_gated_mlp:  # S+ and H+
        if config.hidden_act != "silu":
            raise ValueError(
                f"hidden_act: got {config.hidden_act!r}; expected 'silu' of gated MLPs"
            )
        gated = {"activation": "swiglu"}
    if config.rope_theta != ROPE_BASE:
        raise ValueError(f"rope_theta: got {config.rope_theta}; expected {ROPE_BASE}")
    return {
        "intermediate_size": config.intermediate_size,
        "num_registers": config.num_register_tokens,
        **gated,
    }


DINOV3 = EncoderFamily(
    name="dinov3",
    module=DINOv3,
    num_cls_tokens=1,
    activation="gelu",
    eps=1e-5,
    layer_scale=True,
    key_bias=False,
    image_mean=IMAGENET_MEAN,
    image_std=IMAGENET_STD,
    huggingface=HuggingFaceEncoder(
        model_types=("dinov3_vit",),
        sizes=read_sizes,
        defaults={
            "hidden_size": 384,
            "num_attention_heads": 6,
            "intermediate_size": 1536,
            "layer_norm_eps": 1e-5,
            "rope_theta": 100.0,
            "use_gated_mlp": False,
            "num_register_tokens": 0,
        },
        aliases={"DINOv3": "facebook/dinov3-vitl16-pretrain-lvd1689m"},
        tensors=TensorNames(
            tower="model",
            tokens={
                "cls_token": "embeddings.cls_token",
                "registers": "embeddings.register_tokens",
                "mask_token": "embeddings.mask_token",
            },
            patches="embeddings.patch_embeddings",
            blocks="layer.{}",
            norms=("norm1", "norm2"),
            mlp=("mlp.up_proj", "mlp.down_proj"),
            gate="mlp.gate_proj",
            scales={"scale1": "layer_scale1.lambda1", "scale2": "layer_scale2.lambda1"},
            unused=r"norm\..*",
        ),
    ),
    diffusers=None,
)
