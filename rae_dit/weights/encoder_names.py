"""Hugging Face's names for the tensors of encoders, from the record of each family.

Files spell the same tensor in several ways (whole models, towers alone, older and newer
`transformers`), so names are first brought to the newest spelling by `canonical_name`. Tensors that
RAE does not use are left out by name, not by accident: text towers, MAE's own decoder, pooling
heads, and the affine parameters of the last norm.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np

from rae_dit.architecture import EncoderArchitecture
from rae_dit.models.encoders import find_family
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.models.encoders.family import TensorNames
from rae_dit.weights.mapping import (
    BATCHED,
    Entry,
    Tensors,
    convolution,
    in_blocks,
    layer_norm,
    linear,
    tensor_shape,
)

# Older spellings of what is inside a block, in every family.
OLDER = {
    r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.": r".attention.\1_proj.",
    r"\.attention\.output\.dense\.": ".attention.o_proj.",
}


def encoder_entries(encoder: VisionTransformer) -> list[Entry]:
    """Returns the canonical names of an encoder, which may be abstract."""
    names = find_family(encoder.architecture.family).huggingface.tensors
    mlp = [*linear("mlp.fc1", names.mlp[0]), *linear("mlp.fc2", names.mlp[1])]
    if encoder.architecture.activation == "swiglu":
        mlp = [*linear("mlp.w12", names.gate, names.mlp[0]), *linear("mlp.w3", names.mlp[1])]
    block = [
        *layer_norm("norm1", names.norms[0]),
        *layer_norm("norm2", names.norms[1]),
        *linear("attention.qkv", *names.qkv),
        *linear("attention.proj", names.attention_output),
        *mlp,
        *(Entry(path, (key,)) for path, key in names.scales.items()),
    ]
    numbers = range(encoder.architecture.depth)
    return [
        *(Entry(path, (key,), BATCHED) for path, key in names.tokens.items()),
        *(Entry(path, (key,)) for path, key in names.tables.items()),
        *linear("embed", names.patches, kernel=convolution(encoder.patch_size)),
        *in_blocks("trunk.blocks", names.blocks, numbers, block),
    ]


class Joined(Mapping[str, np.ndarray]):
    """Another mapping's tensors and some more, which do not count if it has them."""

    def __init__(self, tensors: Tensors, more: Tensors):
        self.tensors = tensors
        self.more = {name: value for name, value in more.items() if name not in tensors}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.more[name] if name in self.more else self.tensors[name]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without reading it."""
        return tensor_shape(self.more if name in self.more else self.tensors, name)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self.tensors, self.more)

    def __contains__(self, name: object) -> bool:  # Mapping's reads the tensor
        return name in self.more or name in self.tensors

    def __len__(self) -> int:
        return len(self.tensors) + len(self.more)


def with_key_biases(tensors: Tensors, architecture: EncoderArchitecture) -> Joined:
    """Adds the keys' biases, zeros, that a family without them does not keep in its files."""
    names = find_family(architecture.family).huggingface.tensors
    name = f"{names.blocks}.{names.qkv[1]}.bias"
    zeros = np.zeros(architecture.hidden_size, np.float32)
    return Joined(tensors, {name.format(number): zeros for number in range(architecture.depth)})


class Renamed(Mapping[str, np.ndarray]):
    """Another mapping's tensors under other names, still read one at a time."""

    def __init__(self, tensors: Tensors, names: dict[str, str]):
        self.tensors = tensors
        self.names = names  # new -> old

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self.names[name]]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without reading it."""
        return tensor_shape(self.tensors, self.names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:  # Mapping's reads the tensor
        return name in self.names

    def __len__(self) -> int:
        return len(self.names)


def without_prefix(tensors: Tensors, prefix: str) -> Renamed:
    """Returns the tensors of one part of a larger model, named as in the part."""
    inside = [name for name in tensors if name.startswith(prefix)]
    return Renamed(tensors, {name.removeprefix(prefix): name for name in inside})


def canonical(tensors: Tensors, names: TensorNames) -> Renamed:
    """Returns a file's tensors under their canonical names, without those RAE does not use."""
    renamed = {canonical_name(name, names): name for name in tensors}
    return Renamed(tensors, {new: old for new, old in renamed.items() if new is not None})


def canonical_name(name: str, names: TensorNames) -> str | None:
    """Returns the newest spelling of a tensor's name, or None if RAE does not use the tensor."""
    name = re.sub(rf"^(model\.)?({re.escape(names.tower)})?\.?", "", name)
    if re.fullmatch(names.unused, name):
        return None
    for older, newer in {**OLDER, **names.older}.items():
        name = re.sub(older, newer, name)
    return name
