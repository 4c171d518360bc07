"""Architectures read off the names and shapes of tensors in official files."""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rae_dit.architecture import DDTArchitecture, DecoderArchitecture
from rae_dit.weights.mapping import Tensors, WeightsError
from rae_dit.weights.raev2 import is_raev2, raev2_architecture

log = logging.getLogger(__name__)

Pair = tuple[int, int]

# Heads of the released sizes, for files that do not tell: width -> heads.
DDT_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 2048: 16}
DECODER_HEADS = {768: 12, 1024: 16, 1152: 16}
RELEASED_HEAD_DEPTH = 2


def ddt_architecture(
    tensors: Tensors,
    *,
    input_size: int | None = None,
    depth: Pair | None = None,
    num_heads: Pair | None = None,
    mlp_ratio: float | None = None,
    base_depth: int | None = None,
) -> DDTArchitecture:
    """Reads the architecture of a DiT^DH off an official state dict.

    The hints serve where the file does not tell; where it does, they are not used.

    Args:
        tensors: the state dict.
        input_size: side of the latent grid, for files with neither RoPE nor position embedding.
        depth: blocks of backbone and head, for files where both have one width and the head has
            not the 2 blocks of every released model.
        num_heads: heads, for files without RoPE and qk-norm; None takes those of the released
            widths.
        mlp_ratio: taken where it gives the file's MLP widths, to which other ratios may round.
        base_depth: blocks before the second head of an RAEv2 network; None takes the released 8.

    Raises:
        WeightsError: if this is no DiT^DH, if it has a switch that we do not build, or if a hint is
            missing.
    """
    narrow = shape_of(tensors, "s_embedder.proj.bias", "a DiT^DH")[0]
    numbers = block_numbers(tensors, "blocks")
    wide, channels, patch, _ = shape_of(tensors, "x_embedder.proj.weight", "a DiT^DH")
    if is_raev2(tensors):
        widths, last = (narrow, wide), len(numbers) - 1
        ratio = ddt_mlp_ratio(tensors, widths, last=last, hint=mlp_ratio)
        return raev2_architecture(tensors, base_depth=base_depth, mlp_ratio=ratio)
    if shape_of(tensors, "blocks.0.adaLN_modulation.1.bias", "a DiT^DH") == (4 * narrow,):
        raise WeightsError(
            "The file is of a model without shifts in its adaLN (wo_shift), which neither the "
            "reference nor this project can run."
        )
    hidden_size, last = (narrow, wide), len(numbers) - 1
    return DDTArchitecture(
        input_size=ddt_input_size(tensors, patch, hint=input_size),
        in_channels=channels,
        patch_size=patch,
        hidden_size=hidden_size,
        depth=ddt_depth(tensors, numbers, hidden_size, hint=depth),
        num_heads=ddt_heads(tensors, hidden_size, last=last, hint=num_heads),
        mlp_ratio=ddt_mlp_ratio(tensors, hidden_size, last=last, hint=mlp_ratio),
        num_classes=shape_of(tensors, "y_embedder.embedding_table.weight", "a DiT^DH")[0] - 1,
        use_qknorm="blocks.0.attn.q_norm.weight" in tensors,
        use_swiglu="blocks.0.mlp.w12.weight" in tensors,
        use_rope="enc_feat_rope.freqs_cos" in tensors,
        use_rmsnorm="blocks.0.norm1.weight" in tensors,
        use_pos_embed="pos_embed" in tensors,
    )


def ddt_depth(tensors: Tensors, numbers: range, hidden_size: Pair, *, hint: Pair | None) -> Pair:
    """Counts the blocks of backbone and head: the head begins where the width changes.

    When it does not change, the width of an attention head may (qk-norm shows it). When nothing
    does, the file does not tell: the hint is taken if it has as many blocks, else the head is taken
    to have the 2 blocks of every released model, which is logged.
    """

    def narrow_blocks(name: str, width: int) -> int:
        return sum(tensors[name.format(number)].shape == (width,) for number in numbers)

    if hidden_size[0] != hidden_size[1]:
        backbone = narrow_blocks("blocks.{}.attn.proj.bias", hidden_size[0])
        return backbone, len(numbers) - backbone
    q_norm = "blocks.{}.attn.q_norm.weight"
    first, last = (q_norm.format(number) for number in (0, numbers[-1]))
    if first in tensors and tensors[first].shape != tensors[last].shape:
        backbone = narrow_blocks(q_norm, tensors[first].shape[0])
        return backbone, len(numbers) - backbone
    if hint is not None and sum(hint) == len(numbers):
        return hint
    log.warning(
        "backbone and head are both %d wide: taking the last %d of %d blocks as the head; "
        "give depth=(backbone, head) if it is not so",
        hidden_size[0],
        RELEASED_HEAD_DEPTH,
        len(numbers),
    )
    return len(numbers) - RELEASED_HEAD_DEPTH, RELEASED_HEAD_DEPTH


def ddt_input_size(tensors: Tensors, patch_size: int, *, hint: int | None) -> int:
    """Returns the side of the latent grid, from the position embedding or the rotary tables."""
    for name, axis in (("pos_embed", 1), ("enc_feat_rope.freqs_cos", 0)):
        if name in tensors:
            return patch_size * square_root(tensors[name].shape[axis], name)
    if hint is not None:
        return hint
    raise WeightsError(
        "The file has neither position embedding nor RoPE, so it does not tell the latent's size; "
        "give input_size."
    )


def ddt_heads(tensors: Tensors, hidden_size: Pair, *, last: int, hint: Pair | None) -> Pair:
    """Returns the heads of both parts: a rotary table, or a qk-norm, is as wide as one head."""
    tables = ("enc_feat_rope.freqs_cos", "dec_feat_rope.freqs_cos")
    norms = ("blocks.0.attn.q_norm.weight", f"blocks.{last}.attn.q_norm.weight")
    for names in (tables, norms):
        if all(name in tensors for name in names):
            head_widths = [tensors[name].shape[-1] for name in names]
            narrow, wide = (
                width // head for width, head in zip(hidden_size, head_widths, strict=True)
            )
            return narrow, wide
    if hint is not None:
        return hint
    if all(width in DDT_HEADS for width in hidden_size):
        return DDT_HEADS[hidden_size[0]], DDT_HEADS[hidden_size[1]]
    raise WeightsError(
        f"The file has neither RoPE nor qk-norm, so it does not tell its heads, and the widths "
        f"{hidden_size} are not those of a released model; give num_heads=(backbone, head)."
    )


def ddt_mlp_ratio(tensors: Tensors, hidden_size: Pair, *, last: int, hint: float | None) -> float:
    """Returns a ratio that gives the MLP widths of both parts, rounded down as the models do."""
    swiglu = "blocks.0.mlp.w3.weight" in tensors
    name = "blocks.{}.mlp.w3.weight" if swiglu else "blocks.{}.mlp.fc2.weight"
    found = [shape_of(tensors, name.format(n), "a DiT^DH")[1] for n in (0, last)]

    def hidden(width: int, ratio: float) -> int:
        return int(2 / 3 * int(width * ratio)) if swiglu else int(width * ratio)

    shrink = 2 / 3 if swiglu else 1.0
    eighths = [number / 8 for number in range(1, 129)]
    exact = [
        (round(size / shrink) + nudge + 0.5) / width
        for size, width in zip(found, hidden_size, strict=True)
        for nudge in (-1, 0, 1)
    ]
    hints = [] if hint is None else [hint]
    for ratio in (*hints, *eighths, *exact):
        if [hidden(width, ratio) for width in hidden_size] == found:
            return ratio
    raise WeightsError(f"No mlp_ratio gives MLPs of {found} at widths {hidden_size}.")


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
    hidden_size, in_width = shape_of(tensors, "decoder_embed.weight", "a decoder")
    pixels = shape_of(tensors, "decoder_pred.bias", "a decoder")[0]
    if grid is None:
        positions = shape_of(tensors, "decoder_pos_embed", "a decoder")[1]
        grid = square_root(positions - 1, "decoder_pos_embed")
    if config is not None:
        num_heads, eps = config["decoder_num_attention_heads"], config["layer_norm_eps"]
        if config["hidden_act"] != "gelu":
            raise WeightsError(
                f"The decoder's config asks for the activation {config['hidden_act']!r}; only "
                "'gelu' can be built."
            )
    elif hidden_size in DECODER_HEADS:
        num_heads, eps = DECODER_HEADS[hidden_size], 1e-12
    else:
        raise WeightsError(
            f"A decoder of width {hidden_size} is not a released one, so its heads are not known; "
            "put its config.json (with decoder_num_attention_heads) beside the file."
        )
    mlp_bias = "decoder_layers.0.intermediate.dense.bias"
    return DecoderArchitecture(
        in_width=in_width,
        grid=grid,
        patch_size=square_root(pixels // 3, "decoder_pred"),
        hidden_size=hidden_size,
        depth=len(block_numbers(tensors, "decoder_layers")),
        num_heads=num_heads,
        intermediate_size=shape_of(tensors, mlp_bias, "a decoder")[0],
        eps=eps,
    )


def block_numbers(names: Iterable[str], prefix: str) -> range:
    """Returns the numbers N of all names "prefix.N. ...": 0, 1, ... without a gap.

    Raises:
        WeightsError: if there are none, or some are missing.
    """
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in names)
    numbers = {int(match[1]) for match in matches if match}
    gaps = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if gaps:
        raise WeightsError(f"The file has no tensors {prefix}.{gaps[0]}.*; is it of another model?")
    return range(len(numbers))


def shape_of(tensors: Tensors, name: str, what: str) -> tuple[int, ...]:
    """Returns the shape of a tensor that must be there.

    Raises:
        WeightsError: if it is missing.
    """
    if name not in tensors:
        known = ", ".join(sorted(tensors)[:5])
        raise WeightsError(f"This is not {what}: {name} is missing (the file has {known}, ...).")
    return tensors[name].shape


def square_root(number: int, name: str) -> int:
    """Returns the side of a square of `number` tokens or pixels.

    Raises:
        WeightsError: if it is no square.
    """
    side = round(number**0.5)
    if side * side != number:
        raise WeightsError(f"{name} is for {number} tokens or pixels, which is no square.")
    return side
