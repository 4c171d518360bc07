"""The encoder of ViT-MAE: CLS before the patches, fixed sine-cosine positions, exact GELU.

Nothing is masked, which keeps the patches in raster order. A position table of another size is
interpolated with torch's bicubic kernel, a = -3/4, not antialiased.

Source: `vit_mae` in `transformers`; SEMANTICS 4.2.
"""

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.encoders.base import VisionTransformer, interpolate, small_normal
from rae_dit.models.encoders.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DiffusersEncoder,
    EncoderFamily,
    HuggingFaceEncoder,
    TensorNames,
)
from rae_dit.models.layers import make_constant, sincos_position_embedding, value_of
from rae_dit.models.transformer import prepend


class ViTMAE(VisionTransformer):
    """The encoder of ViT-MAE; arguments and errors are those of `VisionTransformer`."""

    def __init__(self, architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        super().__init__(architecture, compute, rngs=rngs)
        width, side = architecture.hidden_size, architecture.position_grid
        self.cls_token = small_normal((1, width), rngs)
        table = sincos_position_embedding(width, side, side)
        # Released files carry the table, and need not have ours to the bit.
        self.position = make_constant(np.pad(table, ((1, 0), (0, 0))), trained=False)

    def embed_tokens(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Returns [CLS + p_0, patches + p_1..N]."""
        position = value_of(self.position)
        x = patches + interpolate(position[1:], self.grid).astype(patches.dtype)
        return prepend(self.cls_token[...] + position[:1], x)


MAE = EncoderFamily(
    name="mae",
    module=ViTMAE,
    num_cls_tokens=1,
    activation="gelu",
    eps=1e-12,
    layer_scale=False,
    image_mean=IMAGENET_MEAN,
    image_std=IMAGENET_STD,
    huggingface=HuggingFaceEncoder(
        model_types=("vit_mae",),
        aliases={"MAEwNorm": "facebook/vit-mae-base", "MAEwithNorm": "facebook/vit-mae-base"},
        tensors=TensorNames(
            tower="vit",
            tokens={
                "cls_token": "embeddings.cls_token",
                "position": "embeddings.position_embeddings",
            },
            blocks="layers.{}",
            norms=("layernorm_before", "layernorm_after"),
            unused=r"(decoder|layernorm)\..*",
            older={
                r"^encoder\.layer\.": "layers.",
                r"\.intermediate\.dense\.": ".mlp.fc1.",
                r"(\d)\.output\.dense\.": r"\1.mlp.fc2.",
            },
        ),
    ),
    diffusers=DiffusersEncoder(
        encoder_type="mae",
        position_grid=14,
        intermediate_size=lambda width: 3072,
    ),
)
