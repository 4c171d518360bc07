"""What Hugging Face calls the tensors of the three encoder families.

Files spell the same tensor in several ways (whole models, towers alone, older and newer
`transformers`), so names are first brought to the newest spelling by `canonical_name`. What RAE
does not use is left out by name, not by accident: text towers, MAE's own decoder, pooling heads,
and the affine parameters of the last norm.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from rae_dit.models.encoders.base import MAE, DINOv2, SigLIP, VisionTransformer
from rae_dit.weights.mapping import (
    BATCHED,
    Entry,
    Tensors,
    convolution,
    in_blocks,
    layer_norm,
    linear,
)

BLOCKS = {DINOv2: "encoder.layer.{}", SigLIP: "encoder.layers.{}", MAE: "layers.{}"}


def position_names(family: type[VisionTransformer]) -> tuple[str, int]:
    """The name of a family's position table and how many of its rows are not patches."""
    if family is SigLIP:
        return "embeddings.position_embedding.weight", 0
    return "embeddings.position_embeddings", 1


def encoder_entries(encoder: VisionTransformer) -> list[Entry]:
    """Canonical names of an encoder, which may be abstract."""
    kernel = convolution(encoder.patch_size)
    qkv = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
    patches, output, norms = "embeddings.patch_embeddings.projection", "attention.o_proj", ("", "")
    entries = [Entry("cls_token", ("embeddings.cls_token",), BATCHED)]
    position = Entry("position", (position_names(type(encoder))[0],), BATCHED)
    scales: list[Entry] = []
    match encoder:
        case DINOv2():
            norms = ("norm1", "norm2")
            entries.append(Entry("registers", ("embeddings.register_tokens",), BATCHED))
            entries.append(Entry("mask_token", ("embeddings.mask_token",)))
            scales = [Entry(f"scale{n}", (f"layer_scale{n}.lambda1",)) for n in (1, 2)]
        case MAE():
            norms = ("layernorm_before", "layernorm_after")
        case SigLIP():
            norms = ("layer_norm1", "layer_norm2")
            qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
            patches, output = "embeddings.patch_embedding", "self_attn.out_proj"
            entries, position = [], Entry("position", position.keys)
    block = [
        *layer_norm("norm1", norms[0]),
        *layer_norm("norm2", norms[1]),
        *linear("attention.qkv", *qkv),
        *linear("attention.proj", output),
        *linear("mlp.fc1", "mlp.fc1"),
        *linear("mlp.fc2", "mlp.fc2"),
        *scales,
    ]
    numbers = range(encoder.trunk.depth)
    embed = linear("embed", patches, kernel=kernel)
    return [
        *entries,
        position,
        *embed,
        *in_blocks("trunk.blocks", BLOCKS[type(encoder)], numbers, block),
    ]


class Renamed(Mapping[str, np.ndarray]):
    """Another mapping's tensors under other names, still read one at a time."""

    def __init__(self, tensors: Tensors, names: dict[str, str]):
        self.tensors = tensors
        self.names = names  # new -> old

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def without_prefix(tensors: Tensors, prefix: str) -> Renamed:
    """The tensors of one part of a larger model, named as in the part."""
    inside = [name for name in tensors if name.startswith(prefix)]
    return Renamed(tensors, {name.removeprefix(prefix): name for name in inside})


def canonical(tensors: Tensors, family: type[VisionTransformer]) -> Renamed:
    """A file's tensors under their canonical names, without those RAE does not use."""
    names = {canonical_name(name, family): name for name in tensors}
    return Renamed(tensors, {new: old for new, old in names.items() if new is not None})


# What is left out, per family; every other tensor must find its place.
UNUSED = {
    DINOv2: r"(layernorm|classifier)\..*",
    SigLIP: r"text_model\..*|logit_scale|logit_bias|(post_layernorm|head)\..*"
    r"|embeddings\.position_ids",
    MAE: r"(decoder|layernorm)\..*",
}
# The tower's name inside larger models, and older spellings of what is inside a block.
TOWER = r"^(model\.)?(dinov2_with_registers|vision_model|vit)?\.?"
OLDER = {
    r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.": r".attention.\1_proj.",
    r"\.attention\.output\.dense\.": ".attention.o_proj.",
}
OLDER_MAE = {
    r"^encoder\.layer\.": "layers.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"(\d)\.output\.dense\.": r"\1.mlp.fc2.",
}


def canonical_name(name: str, family: type[VisionTransformer]) -> str | None:
    """The newest spelling of a tensor's name, or None when RAE does not use the tensor."""
    name = re.sub(TOWER, "", name)
    if re.fullmatch(UNUSED[family], name):
        return None
    for older, newer in (OLDER | (OLDER_MAE if family is MAE else {})).items():
        name = re.sub(older, newer, name)
    return name
