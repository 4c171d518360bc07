"""Names of a DiT^DH in RAEv2's files (nyu-visionx/RAEv2-models), and its architecture from them.

Queries, keys and values are apart there, as are both halves of SwiGLU. The depth of the second head
is not in the file; every published network has 8.

Source: nanovisionx/RAEv2 `stage2/models/DDT.py`; RAEV2.md 3.
"""

import logging

import numpy as np

from rae_dit.architecture import DDTArchitecture, Prediction
from rae_dit.models.ddt import DDT
from rae_dit.models.ddt_block import DDTBlock
from rae_dit.weights.encoder_names import Renamed
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.mapping import Entry, Tensors, convolution, in_blocks, linear
from rae_dit.weights.shapes import block_numbers, check_positions, divide, shape_of, square_root

log = logging.getLogger(__name__)

CLASS_TOKENS = "ctx_embedder.learnable_tokens"
RELEASED_BASE_DEPTH = 8
WHAT = "an RAEv2 DiT^DH"
TRAINING_ONLY = "repa_projector."


def is_raev2(tensors: Tensors) -> bool:
    """Recognizes the state dict of an RAEv2 DiT^DH."""
    return CLASS_TOKENS in tensors


def without_training_heads(tensors: Tensors) -> Tensors:
    """Leaves out the projector of REPA, which nothing but its training needs."""
    left = [name for name in tensors if name.startswith(TRAINING_ONLY)]
    if not left:
        return tensors
    log.warning("%d tensors of %s are left out: they serve REPA's loss", len(left), TRAINING_ONLY)
    return Renamed(tensors, {name: name for name in tensors if name not in left})


def raev2_entries(model: DDT) -> list[Entry]:
    """Maps an RAEv2 DiT^DH, which may be abstract, to the names in its files."""
    entries = [
        *linear("embed_s", "s_embedder.proj", kernel=convolution(model.patch_size)),
        *linear("embed_x", "x_embedder.proj", kernel=convolution(model.patch_size)),
        Entry("time_embedding.frequency", ("t_embedder.W",)),
        *linear("time_embedding.fc1", "t_embedder.mlp.0"),
        *linear("time_embedding.fc2", "t_embedder.mlp.2"),
        Entry("time_tokens", ("t_embedder.learnable_tokens",)),
        Entry("class_tokens", (CLASS_TOKENS,)),
        Entry("label_table", ("ctx_embedder.embedding_table.weight",)),
        *output_entries("final", "final_layer"),
    ]
    if model.project is not None:
        entries += linear("project", "s_projector")
    if model.architecture.base_depth:
        entries += output_entries("base", "base_final_layer")
    first = 0
    for name, stack in model.stacks().items():
        numbers = range(first, first + stack.depth)
        modulated = isinstance(stack.blocks, DDTBlock)
        entries += in_blocks(
            f"{name}.blocks", "blocks.{}", numbers, block_entries(modulated=modulated)
        )
        first += stack.depth
    return entries


def output_entries(path: str, key: str) -> list[Entry]:
    """Maps the last layers of a head."""
    return [
        Entry(f"{path}_norm.weight", (f"{key}.norm.weight",)),
        *linear(f"{path}_modulation.linear", f"{key}.adaln_modulation.1"),
        *linear(f"{path}_linear", f"{key}.linear"),
    ]


def block_entries(*, modulated: bool) -> list[Entry]:
    """Maps a block; those of the wide head are modulated."""
    norms = ("norm1", "norm2", "attn.q_norm", "attn.k_norm")
    return [
        *linear("attention.qkv", "attn.q", "attn.k", "attn.v"),
        *linear("attention.proj", "attn.proj"),
        *linear("mlp.w12", "mlp.w1", "mlp.w2"),
        *linear("mlp.w3", "mlp.w3"),
        *(
            Entry(f"{norm.replace('attn', 'attention')}.weight", (f"{norm}.weight",))
            for norm in norms
        ),
        *(linear("modulation.linear", "adaln_modulation.1") if modulated else []),
    ]


def raev2_buffers(model: DDT) -> dict[str, np.ndarray]:
    """Computes the rotary tables that the files contain."""
    return {
        f"{name}_rope.freqs_{function}": np.asarray(table)
        for part, name in enumerate(("enc", "dec"))
        for function, table in zip(("cos", "sin"), model.rope(part), strict=True)
    }


def refuse_unnamed(architecture: DDTArchitecture) -> None:
    """Refuses to export a network for which there are no names.

    Raises:
        WeightsError: a switch is not that of RAEv2's files, or of RAE's; names it.
    """
    conditioning = architecture.conditioning
    named: dict[str, int | bool] = {"base_depth": 0}
    if conditioning == "tokens":
        named = {"use_pos_embed": False}
        named |= dict.fromkeys(("use_qknorm", "use_rope", "use_rmsnorm", "use_swiglu"), True)
    for name, expected in named.items():
        if (got := getattr(architecture, name)) != expected:
            raise WeightsError(
                f"{name}: got {got}; expected {expected} with conditioning {conditioning!r}: the "
                "reference's files have no names for others"
            )


def raev2_architecture(
    tensors: Tensors,
    *,
    base_depth: int | None,
    mlp_ratio: float,
    prediction: Prediction | None = None,
) -> DDTArchitecture:
    """Reads the architecture off a state dict.

    Args:
        tensors: the state dict.
        base_depth: blocks before the second head, which the file does not tell; None takes the 8 of
            the published networks, which is logged.
        mlp_ratio: as it gives the file's MLP widths.
        prediction: what its outputs are, which the file does not tell; None takes the data "x" of
            the published networks, all of which have a second head.

    Raises:
        WeightsError: a tensor is missing, there are no 8 blocks, or a network with one head whose
            prediction is not given.
    """
    numbers = block_numbers(tensors, "blocks")
    head = [n for n in numbers if f"blocks.{n}.adaln_modulation.1.weight" in tensors]
    wide, channels, patch, _ = shape_of(tensors, "x_embedder.proj.weight", WHAT, 4)
    narrow = shape_of(tensors, "s_embedder.proj.bias", WHAT, 1)[0]
    has_base = "base_final_layer.linear.weight" in tensors
    if has_base and base_depth is None:
        base_depth = RELEASED_BASE_DEPTH
        log.warning(
            "base_depth is not in the file: taking %d, as of the published networks", base_depth
        )
    if prediction is None and not has_base:
        raise WeightsError(
            "prediction: got none; expected 'v' or 'x': the file has one head, so it is not one of "
            "the published networks and does not tell"
        )
    depth = len(numbers) - len(head), len(head)
    if has_base and not 0 < (base_depth or 0) < depth[0]:
        raise WeightsError(f"base_depth: got {base_depth}; expected 1 to {depth[0] - 1}")
    heads = [
        divide(width, shape_of(tensors, name, WHAT, 1)[0], name)
        for width, name in (
            (narrow, "blocks.0.attn.q_norm.weight"),
            (wide, f"blocks.{numbers[-1]}.attn.q_norm.weight"),
        )
    ]
    table = "dec_rope.freqs_cos"
    rows = shape_of(tensors, table, WHAT, 2)
    check_positions(table, rows, tokens=rows[0], width=wide // heads[1])
    return DDTArchitecture(
        input_size=patch * square_root(rows[0], table),
        in_channels=channels,
        patch_size=patch,
        hidden_size=(narrow, wide),
        depth=depth,
        num_heads=(heads[0], heads[1]),
        mlp_ratio=mlp_ratio,
        num_classes=shape_of(tensors, "ctx_embedder.embedding_table.weight", WHAT, 2)[0] - 1,
        use_qknorm=True,
        use_pos_embed=False,
        conditioning="tokens",
        time_tokens=shape_of(tensors, "t_embedder.learnable_tokens", WHAT)[0],
        class_tokens=shape_of(tensors, CLASS_TOKENS, WHAT)[0],
        base_depth=base_depth or 0 if has_base else 0,
        prediction=prediction or "x",
    )
