"""The discriminator's weights: DINO's ViT by path, and the reference's heads in both directions.

The features are DINO ViT-S/8: `discs/dino_vit_small_patch8_224.pth` of nyu-visionx/RAE-collections
on the Hugging Face hub. DINO's own `dino_deitsmall8_pretrain.pth` has the same names.
The reference sets the biases of the keys to zero. They add the same number to all logits of a
query, which the softmax does not see, so they are read as they are.
"""

from pathlib import Path
from typing import Any

from flax import nnx

from rae_dit.models.discriminator import Heads
from rae_dit.models.features import DINO
from rae_dit.weights.encoder_names import Renamed
from rae_dit.weights.mapping import (
    BATCHED,
    SAME,
    Entry,
    Layout,
    Tensors,
    build,
    convolution,
    import_tensors,
    in_blocks,
    layer_norm,
    linear,
    parameters_of,
)
from rae_dit.weights.tensor_file import open_tensors

# Of DINO and not of the features: the last norm, and the head that DINO was trained with.
UNUSED = ("norm.", "head.")


def read_dino(path: str | Path, abstract: DINO) -> DINO:
    """Fills an abstract DINO with the tensors of a file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: a tensor is missing, unknown, misshapen or not finite.
    """
    tensors = open_tensors(path)
    used = {name: name for name in tensors if not name.startswith(UNUSED)}
    entries = dino_entries(abstract)
    wanted = parameters_of(abstract)
    return build(
        abstract,
        import_tensors(entries, Renamed(tensors, used), wanted, what=str(path), fixed={}),
    )


def dino_entries(network: DINO) -> list[Entry]:
    """Names of timm's vision transformer, as DINO's files have them."""
    block = [
        *layer_norm("norm1", "norm1"),
        *layer_norm("norm2", "norm2"),
        *linear("attention.qkv", "attn.qkv"),
        *linear("attention.proj", "attn.proj"),
        *linear("mlp.fc1", "mlp.fc1"),
        *linear("mlp.fc2", "mlp.fc2"),
    ]
    return [
        Entry("cls_token", ("cls_token",), BATCHED),
        Entry("position", ("pos_embed",), BATCHED),
        *linear("embed", "patch_embed.proj", kernel=convolution(network.patch_size)),
        *in_blocks("trunk.blocks", "blocks.{}", range(network.trunk.depth), block),
    ]


def import_heads(tensors: Tensors, abstract: Heads, *, kernel_size: int) -> Heads:
    """The reference's heads, with the u and v of their spectral norms.

    Raises:
        WeightsError: a tensor is missing, unknown, misshapen or not finite.
    """
    entries = heads_entries(abstract.count, kernel_size)
    wanted = parameters_of(abstract)
    what = "The discriminator's heads"
    return build(abstract, import_tensors(entries, tensors, wanted, what=what, fixed={}))


def heads_entries(count: int, kernel_size: int) -> list[Entry]:
    """Names inside the reference's ModuleList of heads."""

    def spectral(path: str, key: str, size: int) -> list[Entry]:
        kernel: Any = Layout(lambda x: x.transpose(2, 1, 0), lambda x: x.transpose(2, 1, 0))
        flat = Layout(lambda x: x.reshape(-1, size).T, lambda x: x.T.reshape(-1))
        return [
            Entry(f"{path}.kernel", (f"{key}.weight_orig",), kernel),
            Entry(f"{path}.bias", (f"{key}.bias",)),
            Entry(f"{path}.u", (f"{key}.weight_u",), SAME),
            Entry(f"{path}.v", (f"{key}.weight_v",), flat),
        ]

    head = [
        *spectral("enter", "0.0", 1),
        *layer_norm("enter_norm", "0.1"),
        *spectral("mix", "1.fn.0", kernel_size),
        *layer_norm("mix_norm", "1.fn.1"),
        *spectral("judge", "2", 1),
    ]
    return in_blocks("heads", "{}", range(count), head)


def load_heads(path: str | Path, abstract: Heads, *, kernel_size: int) -> Heads:
    """`import_heads` of a file; raises as it and `open_tensors` do."""
    return import_heads(open_tensors(path), abstract, kernel_size=kernel_size)


def abstract_heads(**sizes: Any) -> Heads:
    """Heads of shapes alone."""
    return nnx.eval_shape(lambda: Heads(**sizes, rngs=nnx.Rngs(0)))
