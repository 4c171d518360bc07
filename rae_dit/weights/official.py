"""Import and export of the reference's files (bytetriper/RAE): DiT^DH and decoders.

weights/architecture.py reads architectures off the tensors. See SEMANTICS 4.10 for the names.
"""

import logging
from typing import Any

import numpy as np
from flax import nnx

from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder, decoder_positions
from rae_dit.models.layers import sincos_position_embedding
from rae_dit.models.mlp import SwiGLU
from rae_dit.weights.mapping import (
    BATCHED,
    Entry,
    Tensors,
    build,
    convolution,
    export_tensors,
    import_tensors,
    in_blocks,
    is_close,
    layer_norm,
    linear,
    parameters_of,
)
from rae_dit.weights.raev2 import raev2_buffers, raev2_entries, refuse_unnamed

log = logging.getLogger(__name__)

INTERVAL_FREQUENCY = "r_embedder.W"  # of a network with two times (MF-RAE) alone


def ddt_entries(model: DDT) -> list[Entry]:
    """Maps a DiT^DH, which may be abstract, to the names in released files."""
    if model.architecture.conditioning == "tokens":
        return raev2_entries(model)
    entries = [
        *linear("embed_x", "x_embedder.proj", kernel=convolution(model.patch_size)),
        *linear("embed_s", "s_embedder.proj", kernel=convolution(model.patch_size)),
        Entry("time_embedding.frequency", ("t_embedder.W",)),
        *linear("time_embedding.fc1", "t_embedder.mlp.0"),
        *linear("time_embedding.fc2", "t_embedder.mlp.2"),
        Entry("label_table", ("y_embedder.embedding_table.weight",)),
        *linear("final_linear", "final_layer.linear"),
        *linear("final_modulation.linear", "final_layer.adaLN_modulation.1"),
    ]
    if model.position is not None:
        entries.append(Entry("position", ("pos_embed",), BATCHED))
    if model.interval_embedding is not None:
        entries += [
            Entry("interval_embedding.frequency", (INTERVAL_FREQUENCY,)),
            *linear("interval_embedding.fc1", "r_embedder.mlp.0"),
            *linear("interval_embedding.fc2", "r_embedder.mlp.2"),
        ]
    if model.project is not None:
        entries += linear("project", "s_projector")
    if parameters_of(model.final_norm):
        entries.append(Entry("final_norm.weight", ("final_layer.norm_final.weight",)))
    block = model.backbone.blocks
    narrow, wide = model.backbone.depth, model.head.depth
    numbers = {"backbone": range(narrow), "head": range(narrow, narrow + wide)}
    for part, blocks in numbers.items():
        entries += in_blocks(f"{part}.blocks", "blocks.{}", blocks, ddt_block_entries(block))
    return entries


def ddt_block_entries(block: nnx.Module) -> list[Entry]:
    """Maps one block of a DiT^DH to the names inside a block."""
    entries = [
        *linear("attention.qkv", "attn.qkv"),
        *linear("attention.proj", "attn.proj"),
        *linear("modulation.linear", "adaLN_modulation.1"),
    ]
    names = ("w12", "w3") if isinstance(block.mlp, SwiGLU) else ("fc1", "fc2")
    for name in names:
        entries += linear(f"mlp.{name}", f"mlp.{name}")
    norms = {"norm1": "norm1", "norm2": "norm2"}
    norms |= {"attention.q_norm": "attn.q_norm", "attention.k_norm": "attn.k_norm"}
    owned = parameters_of(block)
    for path, key in norms.items():
        for leaf in ("weight", "bias"):  # no affine LayerNorm has neither, an RMSNorm no bias
            if f"{path}.{leaf}" in owned:
                entries.append(Entry(f"{path}.{leaf}", (f"{key}.{leaf}",)))
    return entries


def ddt_buffers(model: DDT) -> dict[str, np.ndarray]:
    """Computes the rotary tables that released files contain."""
    if model.architecture.conditioning == "tokens":
        return raev2_buffers(model)
    buffers = {}
    for part, name in enumerate(("enc", "dec")):
        for function, table in zip(("cos", "sin"), model.rope(part), strict=False):
            buffers[f"{name}_feat_rope.freqs_{function}"] = np.asarray(table)
    return buffers


def export_ddt(model: DDT) -> dict[str, np.ndarray]:
    """Returns the official state dict of a DiT^DH.

    Raises:
        WeightsError: official files have no names for such a network.
    """
    refuse_unnamed(model.architecture)
    return export_tensors(ddt_entries(model), parameters_of(model)) | ddt_buffers(model)


def import_ddt(tensors: Tensors, abstract: DDT) -> DDT:
    """Fills an abstract DiT^DH with an official state dict.

    Raises:
        WeightsError: if a tensor is missing, unknown, misshapen or not finite.
    """
    parameters = import_tensors(
        ddt_entries(abstract),
        tensors,
        parameters_of(abstract),
        what="The DiT^DH file",
        fixed=ddt_buffers(abstract),
    )
    if abstract.position is not None:
        width = abstract.architecture.hidden_size[0]
        computed = sincos_position_embedding(width, abstract.grid, abstract.grid)
        log_other_positions("pos_embed", tensors, computed)
    return build(abstract, parameters)


def log_other_positions(name: str, tensors: Tensors, computed: np.ndarray) -> None:
    """Logs stored positions [1, N, D] that are not the sines and cosines [N, D] they begin as."""
    stored = tensors[name][0]
    if not is_close(stored, computed):
        apart = np.abs(stored.astype(np.float32) - computed).max()
        log.info("%s: up to %.2g from sines and cosines; used as stored", name, apart)


def decoder_entries(depth: int, *, attention: tuple[str, str, str, str]) -> list[Entry]:
    """Maps a decoder without its positions to torch's names.

    Args:
        depth: number of blocks.
        attention: names of query, key, value and output.
    """
    *projections, output = attention
    block = [
        *linear("attention.qkv", *projections),
        *linear("attention.proj", output),
        *linear("mlp.fc1", "intermediate.dense"),
        *linear("mlp.fc2", "output.dense"),
        *layer_norm("norm1", "layernorm_before"),
        *layer_norm("norm2", "layernorm_after"),
    ]
    return [
        *linear("embed", "decoder_embed"),
        Entry("cls_token", ("trainable_cls_token",), BATCHED),
        *in_blocks("trunk.blocks", "decoder_layers.{}", range(depth), block),
        *layer_norm("norm", "decoder_norm"),
        *linear("predict", "decoder_pred"),
    ]


OFFICIAL_ATTENTION = (
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
)


def official_decoder_entries(model: Decoder) -> list[Entry]:
    """Maps a decoder, which may be abstract, to the names in released files."""
    return [
        Entry("position", ("decoder_pos_embed",), BATCHED),
        *decoder_entries(model.trunk.depth, attention=OFFICIAL_ATTENTION),
    ]


def export_decoder(model: Decoder) -> dict[str, np.ndarray]:
    """Returns the official state dict of a decoder."""
    return export_tensors(official_decoder_entries(model), parameters_of(model))


def decoder_config(model: Decoder) -> dict[str, Any]:
    """Returns the reference's `config.json` for a decoder (a `ViTMAEConfig`).

    The heads are the one thing in it that the tensors do not tell.
    """
    sizes = model.architecture
    return {
        "model_type": "vit_mae",
        "decoder_hidden_size": sizes.hidden_size,
        "decoder_intermediate_size": sizes.intermediate_size,
        "decoder_num_attention_heads": sizes.num_heads,
        "decoder_num_hidden_layers": sizes.depth,
        "hidden_act": "gelu",
        "hidden_size": sizes.in_width,
        "image_size": sizes.grid * sizes.patch_size,
        "layer_norm_eps": sizes.eps,
        "num_channels": 3,
        "patch_size": sizes.patch_size,
        "qkv_bias": True,
    }


def import_decoder(tensors: Tensors, abstract: Decoder) -> Decoder:
    """Fills an abstract decoder with an official state dict.

    Raises:
        WeightsError: if a tensor is missing, unknown, misshapen or not finite.
    """
    parameters = import_tensors(
        official_decoder_entries(abstract),
        tensors,
        parameters_of(abstract),
        what="The decoder file",
        fixed={},
    )
    sizes = abstract.architecture
    computed = decoder_positions(sizes.hidden_size, sizes.grid)
    log_other_positions("decoder_pos_embed", tensors, computed)
    return build(abstract, parameters)
