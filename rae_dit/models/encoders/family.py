"""The record of an encoder family: everything outside its class that depends on the family.

No other code branches on the name of a family. Names of tensors in third-party files are plain
strings here; `weights/encoder_names.py` makes them a mapping that is read in both directions.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rae_dit.architecture import Triple
from rae_dit.models.encoders.base import VisionTransformer

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorNames:
    """Names of an encoder's tensors in Hugging Face files, in their newest spelling.

    Attributes:
        tower: name of the vision tower inside larger models; dropped from the front of names.
        tokens: tables that files hold as [1, N, D]: our path -> their name. "position", here or in
            `tables`, is the position table.
        tables: tables that files hold as [N, D].
        patches: convolution that embeds patches.
        blocks: one block; "{}" is its number. The names below are those inside a block.
        norms: the LayerNorms before attention and before the MLP.
        qkv: projections to queries, keys and values.
        attention_output: projection after attention.
        mlp: both linear layers.
        gate: the one beside the first, of gated MLPs.
        scales: LayerScale vectors: our path -> their name.
        unused: pattern of the names that RAE does not use. Every other tensor must find its place.
        older: older spellings: pattern -> newest spelling.
    """

    tower: str
    tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patches: str = "embeddings.patch_embeddings.projection"
    blocks: str
    norms: tuple[str, str]
    qkv: tuple[str, str, str] = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
    attention_output: str = "attention.o_proj"
    mlp: tuple[str, str] = ("mlp.fc1", "mlp.fc2")
    gate: str = ""
    scales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unused: str
    older: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_intermediate_size(config: Any) -> dict[str, Any]:
    """Reads the MLP width off a config that states it."""
    return {"intermediate_size": config.intermediate_size}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuggingFaceEncoder:
    """A family as Hugging Face keeps it.

    Attributes:
        model_types: values of `model_type` in config.json that are read. A config with a
            `vision_config` gives that.
        refused_types: values that look like the family and are not: `model_type` -> what to use.
        sizes: reads the fields of `EncoderArchitecture` that are spelled differently from family to
            family off a config. Raises ValueError for what cannot be built.
        defaults: fields of the config and what `transformers` takes for those that it leaves out;
            a value in the config must have the type of the default. `weights/huggingface.py` has
            those of all families.
        aliases: names that are accepted in place of a hub id -> that id: the class names of the
            reference implementation.
        tensors: names in the file of weights.
    """

    model_types: tuple[str, ...]
    refused_types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sizes: Callable[[Any], dict[str, Any]] = read_intermediate_size
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tensors: TensorNames


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusersEncoder:
    """A family in diffusers' `AutoencoderRAE`, which fixes much of it whatever its config says.

    Attributes:
        encoder_type: name of the family in the config.
        position_grid: side of the position table.
        num_registers: register tokens.
        intermediate_size: hidden width of the MLPs of a given width.
        tower: prefix of the encoder's tensors, inside "encoder".
        unused_shapes: names and shapes of the tensors that a file must have and nobody uses, of an
            encoder of a given width. They are written as zeros.
    """

    encoder_type: str
    position_grid: int
    num_registers: int = 0
    intermediate_size: Callable[[int], int]
    tower: str = ""
    unused_shapes: Callable[[int], dict[str, tuple[int, ...]]] = lambda width: {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """A family of encoders.

    Attributes:
        name: as in `config.encoder.family` and `EncoderArchitecture.family`.
        module: class of its networks.
        num_cls_tokens: tokens before registers and patches.
        activation: of the MLPs, in released models.
        eps: of the norms, in released models.
        layer_scale: whether each branch of a block has learned factors.
        key_bias: whether keys have a bias; files of a family without one do not hold it.
        image_mean: per-channel mean of the training images in [0, 1], where a directory has no
            preprocessor_config.json.
        image_std: their deviation.
        huggingface: how Hugging Face keeps it.
        diffusers: how diffusers keeps it; None for a family that it does not know.
    """

    name: str
    module: type[VisionTransformer]
    num_cls_tokens: int
    activation: Literal["gelu", "gelu_tanh"]
    eps: float
    layer_scale: bool
    key_bias: bool = True
    image_mean: Triple
    image_std: Triple
    huggingface: HuggingFaceEncoder
    diffusers: DiffusersEncoder | None
