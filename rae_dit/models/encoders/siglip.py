"""SigLIP and fixed-resolution SigLIP2: patches alone, tanh GELU.

A position table of another size is interpolated with torch's bicubic kernel, a = -3/4, not
antialiased.

Source: `siglip_vision_model` in `transformers`; SEMANTICS 4.2.
"""

from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.encoders.base import VisionTransformer, interpolate, small_normal
from rae_dit.models.encoders.family import (
    DiffusersEncoder,
    EncoderFamily,
    HuggingFaceEncoder,
    TensorNames,
)

DIFFUSERS_MLP_WIDTH = 3072


class SigLIP(VisionTransformer):
    """The vision tower of SigLIP; arguments and errors are those of `VisionTransformer`."""

    def __init__(self, architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        super().__init__(architecture, compute, rngs=rngs)
        self.position = small_normal(
            (architecture.position_grid**2, architecture.hidden_size), rngs
        )

    def embed_tokens(self, patches: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Adds positions to the patches; there is no other token."""
        return patches + interpolate(self.position[...], self.grid).astype(patches.dtype)


def pooling_head_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of SigLIP's attention pooling."""
    return {
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
        "head.attention.out_proj.weight": (width, width),
        "head.attention.out_proj.bias": (width,),
        "head.layernorm.weight": (width,),
        "head.layernorm.bias": (width,),
        "head.mlp.fc1.weight": (DIFFUSERS_MLP_WIDTH, width),
        "head.mlp.fc1.bias": (DIFFUSERS_MLP_WIDTH,),
        "head.mlp.fc2.weight": (width, DIFFUSERS_MLP_WIDTH),
        "head.mlp.fc2.bias": (width,),
    }


SIGLIP = EncoderFamily(
    name="siglip",
    module=SigLIP,
    num_cls_tokens=0,
    activation="gelu_tanh",
    eps=1e-6,
    layer_scale=False,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    huggingface=HuggingFaceEncoder(
        model_types=("siglip", "siglip_vision_model"),
        defaults={"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        aliases={
            "SigLIP2wNorm": "google/siglip2-base-patch16-256",
            "SigLIPwithNorm": "google/siglip2-base-patch16-256",
        },
        tensors=TensorNames(
            tower="vision_model",
            tables={"position": "embeddings.position_embedding.weight"},
            patches="embeddings.patch_embedding",
            blocks="encoder.layers.{}",
            norms=("layer_norm1", "layer_norm2"),
            qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            attention_output="self_attn.out_proj",
            unused=r"text_model\..*|logit_scale|logit_bias|(post_layernorm|head)\..*"
            r"|embeddings\.position_ids",
        ),
    ),
    diffusers=DiffusersEncoder(
        encoder_type="siglip2",
        position_grid=16,
        intermediate_size=lambda width: DIFFUSERS_MLP_WIDTH,
        tower="vision_model",
        unused_shapes=pooling_head_shapes,
    ),
)
