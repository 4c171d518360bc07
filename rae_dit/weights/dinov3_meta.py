"""Meta's own files of DINOv3 (dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth) under the hub's names.

They hold one fused projection to queries, keys and values, with a mask that takes the keys' bias
out, and the periods of the rotary positions, which tell the number of heads.

Source: facebookresearch/dinov3 `models/vision_transformer.py`; RAEV2.md 1.
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from rae_dit.architecture import EncoderArchitecture
from rae_dit.models.encoders.dinov3 import DINOV3, ROPE_BASE
from rae_dit.weights.mapping import Tensors, WeightsError, tensor_shape
from rae_dit.weights.shapes import block_numbers, divide, shape_of

log = logging.getLogger(__name__)

WHAT = "Meta's DINOv3"
PERIODS = "rope_embed.periods"
BLOCK = {
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.up_proj",
    "mlp.w3": "mlp.down_proj",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "storage_tokens": "embeddings.register_tokens",
    "mask_token": "embeddings.mask_token",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
}
PROJECTIONS = ("q", "k", "v")
# Periods are stored in float32, perhaps after a rounding to bfloat16 that would show as 4e-3.
TOLERANCE = 1e-4


def is_meta_file(tensors: Tensors) -> bool:
    """Recognizes a state dict of Meta's DINOv3."""
    return PERIODS in tensors and "storage_tokens" in tensors


class HuggingFaceNames(Mapping[str, np.ndarray]):
    """A state dict of Meta's under the names of the hub; tensors are read when asked for."""

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self.names: dict[str, tuple[str, int | None]] = {}  # hub's name -> ours, third of q|k|v
        for name in tensors:
            self.names |= hub_names(name)

    def __getitem__(self, name: str) -> np.ndarray:
        source, third = self.names[name]
        tensor = self.tensors[source]
        if name == "embeddings.mask_token":
            return tensor.reshape(1, 1, -1)
        return tensor if third is None else np.split(tensor, 3)[third]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without reading it.

        Raises:
            WeightsError: a fused projection is not of three parts.
        """
        source, third = self.names[name]
        shape = tensor_shape(self.tensors, source)
        if name == "embeddings.mask_token":
            return 1, 1, math.prod(shape)
        if third is None:
            return shape
        if not shape or shape[0] % len(PROJECTIONS):
            raise WeightsError(f"{source}: got shape {shape}; expected 3 parts of one size")
        return shape[0] // len(PROJECTIONS), *shape[1:]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:  # Mapping's reads the tensor
        return name in self.names

    def __len__(self) -> int:
        return len(self.names)


def hub_names(name: str) -> dict[str, tuple[str, int | None]]:
    """Returns the hub's names of one of Meta's tensors; none if RAE does not use it."""
    if name in OUTSIDE:
        return {OUTSIDE[name]: (name, None)}
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if found is None:  # the last norm, whose affine parameters RAE drops, and the periods
        return {} if name == PERIODS or name.startswith("norm.") else {name: (name, None)}
    number, rest = found.groups()
    if rest == "attn.qkv.bias_mask":
        return {}
    if rest.startswith("attn.qkv."):
        kind = rest.removeprefix("attn.qkv.")
        parts = [(i, part) for i, part in enumerate(PROJECTIONS) if (part, kind) != ("k", "bias")]
        return {f"layer.{number}.attention.{part}_proj.{kind}": (name, i) for i, part in parts}
    for theirs, hub in BLOCK.items():
        rest = rest.replace(theirs, hub)
    return {f"layer.{number}.{rest}": (name, None)}


def meta_architecture(tensors: Tensors, *, input_size: int) -> EncoderArchitecture:
    """Reads an architecture off a state dict of Meta's.

    Args:
        tensors: the state dict.
        input_size: pixels a side that the encoder will see.

    Raises:
        WeightsError: a tensor is missing or has an odd shape.
    """
    numbers = block_numbers(tensors, "blocks")
    gated = "blocks.0.mlp.w1.weight" in tensors  # S+ and H+
    first = f"blocks.0.mlp.{'w1' if gated else 'fc1'}.weight"
    intermediate_size, hidden_size = shape_of(tensors, first, WHAT, 2)
    head_width = 4 * shape_of(tensors, PERIODS, WHAT, 1)[0]
    num_heads = divide(hidden_size, head_width, PERIODS)
    periods = tensors[PERIODS]
    exact = ROPE_BASE ** (4 * np.arange(len(periods)) / head_width)
    error = float(np.max(np.abs(periods.astype(np.float64) / exact - 1)))
    if not error <= TOLERANCE:
        log.warning(
            "%s differ from 100^(4 j / head width) by up to %.1e of them; computed ones are used, "
            "as transformers does",
            PERIODS,
            error,
        )
    return EncoderArchitecture(
        family=DINOV3.name,
        input_size=input_size,
        patch_size=shape_of(tensors, "patch_embed.proj.weight", WHAT, 4)[-1],
        position_grid=0,
        num_registers=shape_of(tensors, "storage_tokens", WHAT, 3)[1],
        hidden_size=hidden_size,
        depth=len(numbers),
        num_heads=num_heads,
        intermediate_size=intermediate_size,
        activation="swiglu" if gated else DINOV3.activation,
        eps=DINOV3.eps,
        layer_scale=DINOV3.layer_scale,
        key_bias=DINOV3.key_bias,
    )
