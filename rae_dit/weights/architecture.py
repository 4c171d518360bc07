"""Architectures read off the names and shapes of tensors in official files."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from rae_dit.architecture import DDTArchitecture, DecoderArchitecture, Prediction
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.mapping import Tensors
from rae_dit.weights.official import INTERVAL_FREQUENCY
from rae_dit.weights.raev2 import is_raev2, raev2_architecture
from rae_dit.weights.shapes import (
    MAX_GRID,
    block_numbers,
    check_positions,
    divide,
    shape_of,
    square_root,
)

log = logging.getLogger(__name__)

Pair = tuple[int, int]

# Heads of the released decoders, for files that do not tell: width -> heads.
DECODER_HEADS = {768: 12, 1024: 16, 1152: 16}


def ddt_architecture(
    tensors: Tensors,
    *,
    input_size: int | None = None,
    depth: Pair | None = None,
    num_heads: Pair | None = None,
    mlp_ratio: float | None = None,
    base_depth: int | None = None,
    prediction: Prediction | None = None,
) -> DDTArchitecture:
    """Reads the architecture of a DiT^DH off an official state dict.

    The hints serve where the file does not tell; where it does, they are not used.

    Args:
        tensors: the state dict.
        input_size: side of the latent grid, for files with neither RoPE nor position embedding.
        depth: blocks of backbone and head, for files where both have one width.
        num_heads: heads, for files without RoPE and qk-norm.
        mlp_ratio: taken where it gives the file's MLP widths, to which other ratios may round.
        base_depth: blocks before the second head of an RAEv2 network; None takes the released 8.
        prediction: what the outputs are, which no tensor tells; None takes that of the reference's
            files: "v" of RAE, "x" of RAEv2.

    Raises:
        WeightsError: if this is no DiT^DH, if it has a switch that we do not build, or if a hint is
            missing.
    """
    narrow = shape_of(tensors, "s_embedder.proj.bias", "a DiT^DH", 1)[0]
    numbers = block_numbers(tensors, "blocks")
    wide, channels, patch, _ = shape_of(tensors, "x_embedder.proj.weight", "a DiT^DH", 4)
    if is_raev2(tensors):
        widths, last = (narrow, wide), len(numbers) - 1
        ratio = ddt_mlp_ratio(tensors, widths, last=last, hint=mlp_ratio)
        return raev2_architecture(
            tensors, base_depth=base_depth or None, mlp_ratio=ratio, prediction=prediction
        )
    if shape_of(tensors, "blocks.0.adaLN_modulation.1.bias", "a DiT^DH") == (4 * narrow,):
        raise WeightsError(
            "adaLN_modulation: got a model without shifts (wo_shift), which neither the reference "
            "nor this project can run; expected shift, scale and gate"
        )
    hidden_size, last = (narrow, wide), len(numbers) - 1
    return DDTArchitecture(
        input_size=ddt_input_size(tensors, patch, hidden_size, hint=input_size),
        in_channels=channels,
        patch_size=patch,
        hidden_size=hidden_size,
        depth=ddt_depth(tensors, numbers, hidden_size, hint=depth),
        num_heads=ddt_heads(tensors, hidden_size, last=last, hint=num_heads),
        mlp_ratio=ddt_mlp_ratio(tensors, hidden_size, last=last, hint=mlp_ratio),
        num_classes=shape_of(tensors, "y_embedder.embedding_table.weight", "a DiT^DH", 2)[0] - 1,
        use_qknorm="blocks.0.attn.q_norm.weight" in tensors,
        use_swiglu="blocks.0.mlp.w12.weight" in tensors,
        use_rope="enc_feat_rope.freqs_cos" in tensors,
        use_rmsnorm="blocks.0.norm1.weight" in tensors,
        use_pos_embed="pos_embed" in tensors,
        prediction=prediction or "v",
        interval_embedding=INTERVAL_FREQUENCY in tensors,
    )


def ddt_depth(tensors: Tensors, numbers: range, hidden_size: Pair, *, hint: Pair | None) -> Pair:
    """Counts the blocks of backbone and head: the head begins where the width changes.

    When it does not change, the width of an attention head may (qk-norm shows it). When nothing
    does, the file does not tell, and the hint is taken.

    Raises:
        WeightsError: the file does not tell, and there is no hint of as many blocks.
    """

    def narrow_blocks(name: str, width: int) -> int:
        shapes = (shape_of(tensors, name.format(number), "a DiT^DH") for number in numbers)
        return sum(shape == (width,) for shape in shapes)

    if hidden_size[0] != hidden_size[1]:
        backbone = narrow_blocks("blocks.{}.attn.proj.bias", hidden_size[0])
        return backbone, len(numbers) - backbone
    q_norm = "blocks.{}.attn.q_norm.weight"
    first, last = (q_norm.format(number) for number in (0, numbers[-1]))
    if {first, last} <= tensors.keys() and shape_of(tensors, first, "a DiT^DH") != shape_of(
        tensors, last, "a DiT^DH"
    ):
        backbone = narrow_blocks(q_norm, shape_of(tensors, first, "a DiT^DH", 1)[0])
        return backbone, len(numbers) - backbone
    if hint is not None and sum(hint) == len(numbers):
        return hint
    raise WeightsError(
        f"depth: got {hint or 'none'}; expected depth=(backbone, head) with the sum "
        f"{len(numbers)}: all blocks are {hidden_size[0]} wide, so the file does not tell where "
        "the head begins; 'python -m rae_dit.weights export-ddt FILE OUT --depth …' writes a file "
        "that does"
    )


def ddt_input_size(
    tensors: Tensors, patch_size: int, hidden_size: Pair, *, hint: int | None
) -> int:
    """Returns the side of the latent grid, from the position embedding or the rotary tables."""
    tables = {"pos_embed": 3, "enc_feat_rope.freqs_cos": 2, "dec_feat_rope.freqs_cos": 2}
    found = [
        (name, shape_of(tensors, name, "a DiT^DH", dimensions))
        for name, dimensions in tables.items()
        if name in tensors
    ]
    for name, shape in found:
        width = hidden_size[0] if name == "pos_embed" else None
        check_positions(name, shape, tokens=found[0][1][-2], width=width)
    if found:
        return patch_size * square_root(found[0][1][-2], found[0][0])
    if hint is not None:
        return hint
    raise WeightsError(
        "input_size: got none; expected the side of the latent grid: the file has neither position "
        "embedding nor RoPE, so it does not tell"
    )


def ddt_heads(tensors: Tensors, hidden_size: Pair, *, last: int, hint: Pair | None) -> Pair:
    """Returns the heads of both parts: a rotary table, or a qk-norm, is as wide as one head."""
    tables = ("enc_feat_rope.freqs_cos", "dec_feat_rope.freqs_cos")
    norms = ("blocks.0.attn.q_norm.weight", f"blocks.{last}.attn.q_norm.weight")
    for names, dimensions in ((tables, 2), (norms, 1)):
        if all(name in tensors for name in names):
            narrow, wide = (
                divide(width, shape_of(tensors, name, "a DiT^DH", dimensions)[-1], name)
                for width, name in zip(hidden_size, names, strict=True)
            )
            return narrow, wide
    if hint is not None:
        return hint
    raise WeightsError(
        "num_heads: got none; expected num_heads=(backbone, head): the file has neither RoPE nor "
        "qk-norm, so it does not tell"
    )


def ddt_mlp_ratio(tensors: Tensors, hidden_size: Pair, *, last: int, hint: float | None) -> float:
    """Returns a ratio that gives the MLP widths of both parts, rounded down as the models do."""
    swiglu = "blocks.0.mlp.w3.weight" in tensors
    name = "blocks.{}.mlp.w3.weight" if swiglu else "blocks.{}.mlp.fc2.weight"
    found = [shape_of(tensors, name.format(n), "a DiT^DH", 2)[1] for n in (0, last)]

    def hidden(width: int, ratio: float) -> int:
        return int(2 / 3 * int(width * ratio)) if swiglu else int(width * ratio)

    # The ratios that give one width are an interval [low, high).
    low, high = 0.0, math.inf
    for size, width in zip(found, hidden_size, strict=True):
        near = range(size, 2 * size + 2) if swiglu else (size,)
        whole = [number for number in near if not swiglu or int(2 / 3 * number) == size]
        low, high = max(low, min(whole) / width), min(high, (max(whole) + 1) / width)
    hints = [] if hint is None else [hint]
    eighths = [number / 8 for number in range(1, 129)]
    for ratio in (*hints, *eighths, (low + high) / 2):
        if [hidden(width, ratio) for width in hidden_size] == found:
            return ratio
    raise WeightsError(
        f"mlp_ratio: got MLPs of {found} at widths {hidden_size}; expected widths of one ratio"
    )


def decoder_architecture(
    tensors: Tensors, config: Mapping[str, Any] | None, *, grid: int | None = None
) -> DecoderArchitecture:
    """Reads the architecture of a decoder off an official state dict.

    Args:
        tensors: the state dict.
        config: the `config.json` beside the file, for heads and eps; None takes the heads of the
            released widths.
        grid: tokens a side, for diffusers' decoders, which do not store their positions.

    Raises:
        WeightsError: if this is no decoder, or its heads are not known.
    """
    hidden_size, in_width = shape_of(tensors, "decoder_embed.weight", "a decoder", 2)
    pixels = shape_of(tensors, "decoder_pred.bias", "a decoder", 1)[0]
    if grid is None:
        positions = shape_of(tensors, "decoder_pos_embed", "a decoder", 3)
        check_positions("decoder_pos_embed", positions, tokens=positions[1], width=hidden_size)
        grid = square_root(positions[1] - 1, "decoder_pos_embed")
    if not 0 < grid <= MAX_GRID:
        raise WeightsError(f"grid: got {grid} tokens a side; expected 1 to {MAX_GRID}")
    if config is not None:
        num_heads, eps = config["decoder_num_attention_heads"], config["layer_norm_eps"]
        if config["hidden_act"] != "gelu":
            raise WeightsError(f"hidden_act: got {config['hidden_act']!r}; expected 'gelu'")
        if not num_heads or hidden_size % num_heads:
            expected = f"a divisor of the width {hidden_size}"
            raise WeightsError(f"decoder_num_attention_heads: got {num_heads}; expected {expected}")
    elif hidden_size in DECODER_HEADS:
        num_heads, eps = DECODER_HEADS[hidden_size], 1e-12
        log.warning(
            "the decoder's heads are not in its file: taking %d, as in released ones %d wide",
            num_heads,
            hidden_size,
        )
    else:
        raise WeightsError(
            f"decoder_num_attention_heads: got none; expected it in a config.json beside the file: "
            f"width {hidden_size} is not that of a released decoder, so it does not tell"
        )
    mlp_bias = "decoder_layers.0.intermediate.dense.bias"
    return DecoderArchitecture(
        in_width=in_width,
        grid=grid,
        patch_size=square_root(pixels // 3, "decoder_pred"),
        hidden_size=hidden_size,
        depth=len(block_numbers(tensors, "decoder_layers")),
        num_heads=num_heads,
        intermediate_size=shape_of(tensors, mlp_bias, "a decoder", 1)[0],
        eps=eps,
    )
