"""Architectures of the networks, and how they compute, as frozen dataclasses.

A config section becomes one (setup/models.py), a file of weights is read into one (weights/), a
constructor is given one (`DDT(architecture, compute, rngs=…)`). Whether a file fits a config is
then a comparison of fields. No JAX here, no paths and no settings of a run.
"""

import dataclasses
from typing import Literal

from rae_dit.ranges import Count, Natural, Positive

Attention = Literal["auto", "xla", "cudnn", "splash"]
Remat = Literal["none", "dots", "full"]
Pixels = Literal["normalized", "unit"]
Prediction = Literal["v", "x"]
LatentStorage = Literal["fp32", "bf16", "fp8"]
Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Compute:
    """Computation of a network; every choice gives the same result up to its rounding.

    Attributes:
        attention: implementation, see `models/attention.dot_product_attention`.
        scan_layers: run a stack of blocks under `lax.scan` instead of unrolled.
        remat: what the backward pass recomputes: "none", "dots" (everything but matrix products)
            or "full" (everything but each block's input).
        dtype: of matrix products; parameters are float32 in any case.
        float8: compute the products in the blocks of a DiT^DH from 8-bit floats, to about 1 % of
            their results; other networks ignore it.
    """

    attention: Attention = "auto"
    scan_layers: bool = True
    remat: Remat = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    float8: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDTSizes:
    """The part of a DiT^DH's architecture that a config states in its section `ddt`.

    Pairs are (backbone, head).

    Attributes:
        patch_size: latent positions per token side.
        hidden_size: widths; multiples of 4 each.
        depth: numbers of blocks.
        num_heads: heads; each divides its width, with head widths that are multiples of 4.
        mlp_ratio: MLP hidden width over model width; SwiGLU takes two thirds of it.
        use_qknorm: normalize each head's queries and keys.
        use_swiglu: gated MLPs.
        use_rope: rotary positions.
        use_rmsnorm: RMSNorm with weight instead of LayerNorm without.
        use_pos_embed: fixed 2-D sine-cosine positions on the backbone's tokens.
        conditioning: how time and class enter the backbone: "adaln", or as "tokens" of the sequence
            before plain blocks (RAEv2).
        time_tokens: tokens of the time, of conditioning "tokens".
        class_tokens: tokens of the class, of conditioning "tokens".
        base_depth: blocks of the backbone before the second head; 0 for no second head.
        interval_embedding: a second time r: the network predicts average velocities (MeanFlow).
    """

    patch_size: Count = 1
    hidden_size: tuple[Count, Count]
    depth: tuple[Count, Count]
    num_heads: tuple[Count, Count]
    mlp_ratio: Positive = 4.0
    use_qknorm: bool = False
    use_swiglu: bool = True
    use_rope: bool = True
    use_rmsnorm: bool = True
    use_pos_embed: bool = True
    conditioning: Literal["adaln", "tokens"] = "adaln"
    time_tokens: Count = 4
    class_tokens: Count = 8
    base_depth: Natural = 0
    interval_embedding: bool = False

    @property
    def head_width(self) -> int:
        """Channels of a head of the backbone's attention."""
        return self.hidden_size[0] // self.num_heads[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDTArchitecture(DDTSizes):
    """A whole DiT^DH: its sizes, and the latents and labels it is made for.

    Attributes:
        num_classes: K; labels are 0..K-1 and K means "no class".
        input_size: side h = w of the latent grid.
        in_channels: channels C of the latent.
        prediction: what its outputs are: the velocity "v" or the data "x", see
            `diffusion/prediction`. It returns velocities in either case.
    """

    num_classes: Count
    input_size: Count
    in_channels: Count
    prediction: Prediction = "v"

    def __post_init__(self) -> None:
        """Raises ValueError if a network with two times has a switch that is made for one."""
        one_time = self.conditioning == "tokens" or self.base_depth or self.prediction == "x"
        if self.interval_embedding and one_time:
            raise ValueError(
                "interval_embedding: got True; expected False with conditioning 'tokens', "
                "base_depth > 0 or prediction 'x'"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTArchitecture:
    """The pre-norm blocks of a vision transformer: every encoder, the decoder, DINO.

    Attributes:
        hidden_size: width D.
        depth: number of blocks.
        num_heads: heads; they divide D.
        intermediate_size: hidden width of the MLPs.
        activation: of the MLPs: exact GELU, its tanh approximation, or "swiglu" for gated ones.
        eps: added to the variance in every norm.
        layer_scale: a learned factor for each channel of each branch.
        key_bias: whether keys have a bias, as queries and values do.
    """

    hidden_size: int
    depth: int
    num_heads: int
    intermediate_size: int
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"
    eps: float = 1e-6
    layer_scale: bool = False
    key_bias: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderArchitecture(ViTArchitecture):
    """A representation encoder.

    Attributes:
        family: name of its family, one file in `models/encoders`.
        input_size: side of the image in pixels; a multiple of `patch_size`.
        patch_size: side of a patch in pixels.
        position_grid: side of the stored position table, in patches; interpolated to
            `input_size // patch_size`. 0 for a family without a table.
        num_registers: register tokens, of the families that have them.
        layers: blocks, from 0 and ascending, whose normalized outputs are averaged; () takes the
            last.
        add_mean: add the mean of the last of them over all patches to every token.
    """

    family: str
    input_size: int
    patch_size: int
    position_grid: int
    num_registers: int = 0
    layers: tuple[int, ...] = ()
    add_mean: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderArchitecture(ViTArchitecture):
    """The decoder from tokens to pixels.

    Attributes:
        in_width: width of the incoming tokens.
        grid: tokens a side; N = grid^2.
        patch_size: pixels a side that each token becomes.
        eps: added to the variance in every norm.
    """

    in_width: int
    grid: int
    patch_size: int
    eps: float = 1e-12


def differences(
    one: ViTArchitecture | DDTArchitecture, other: ViTArchitecture | DDTArchitecture
) -> dict[str, tuple[object, object]]:
    """Compares two architectures of one kind: name of a field -> both values, where they differ."""
    pairs = {
        field.name: (getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(one)
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
