"""Weights of the discriminator's frozen features: DINO's ViT, from a file.

The features are DINO ViT-S/8: `discs/dino_vit_small_patch8_224.pth` of nyu-visionx/RAE-collections
on the Hugging Face hub. DINO's own `dino_deitsmall8_pretrain.pth` has the same names.
The reference sets the biases of the keys to zero. They add the same number to all logits of a
query, which the softmax does not see, so they are read as they are.
"""

from pathlib import Path

from rae_dit.models.features import DINO
from rae_dit.weights.encoder_names import Renamed
from rae_dit.weights.mapping import (
    BATCHED,
    Entry,
    build,
    convolution,
    import_tensors,
    in_blocks,
    layer_norm,
    linear,
    parameters_of,
)
from rae_dit.weights.tensor_file import open_tensors

# Parts of DINO that features do not use: the last norm, and the head of its training.
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
    """Maps the network to the names of timm's vision transformer, as in DINO's files."""
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
