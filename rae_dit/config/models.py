"""Config sections of the networks and of the flow between noise and latents.

One frozen dataclass per section: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on.
"""

import dataclasses
import itertools
from typing import Literal

from rae_dit.architecture import DDTSizes, Pixels
from rae_dit.config.check import invalid_value
from rae_dit.config.rules import check_heads, check_one_origin
from rae_dit.ranges import Count, Natural, NonNegative, Positive, Probability


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The frozen representation encoder; weights from elsewhere must have the sizes given here."""

    family: Literal[
        "dinov2", "dinov3", "siglip", "mae"
    ]  # architecture; one file each in rae_dit/models/encoders
    pretrained: str  # hub id or directory; '' = random weights, or those of `checkpoint`
    checkpoint: str  # workdir of a run with objective 'classification'; '' = none
    statistics: str  # mean and variance of latents, .npz or .pt; '' = none
    input_size: Count  # pixels, side of the image as the encoder sees it (resized before)
    position_grid: Natural  # side of its position table in patches, interpolated; 0 for 'dinov3'
    image_mean: tuple[Probability, Probability, Probability]  # of its images in [0, 1], per channel
    image_std: tuple[Positive, Positive, Positive]  # their deviation
    patch_size: Count  # pixels
    hidden_size: Count  # width of a token = channels of the latent
    depth: Count  # blocks
    num_heads: Count  # of attention
    mlp_ratio: Positive  # hidden width of the MLP / hidden_size
    num_registers: Natural  # extra tokens; of 'dinov2' and 'dinov3' only
    layers: tuple[Natural, ...]  # blocks, from 0, whose normalized outputs are averaged; () = last
    add_mean: bool  # add the mean over all patches of the last of them to every token

    def __post_init__(self) -> None:
        """Checks heads, patches and the origin of weights."""
        check_heads("encoder", self.hidden_size, self.num_heads, rope=self.family == "dinov3")
        check_one_origin("encoder", self.pretrained, self.checkpoint)
        if self.input_size % self.patch_size:
            expected = f"a multiple of encoder.patch_size = {self.patch_size}"
            raise invalid_value("encoder.input_size", self.input_size, expected)
        if (self.position_grid == 0) != (self.family == "dinov3"):
            expected = "0 (DINOv3 has no position table)" if self.family == "dinov3" else "> 0"
            raise invalid_value("encoder.position_grid", self.position_grid, expected)
        ascending = all(a < b for a, b in itertools.pairwise(self.layers))
        if not ascending or (self.layers and self.layers[-1] >= self.depth):
            expected = f"ascending numbers below encoder.depth = {self.depth}"
            raise invalid_value("encoder.layers", self.layers, expected)
        if self.num_registers and self.family not in ("dinov2", "dinov3"):
            raise invalid_value(
                "encoder.num_registers", self.num_registers, f"0 for {self.family!r}"
            )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The ViT that turns latents into pixels."""

    # Both: what images are decoded with, and what a new run with objective 'reconstruction' starts
    # from
    pretrained: str  # hub id, directory or .pt file; '' = random weights, or those of `checkpoint`
    pretrained_weights: Literal["ema", "online"]  # of `pretrained`, if it holds both
    checkpoint: str  # workdir of a run with objective 'reconstruction'; '' = none
    patch_size: Count  # pixels per latent cell and side
    hidden_size: Count  # width of its blocks
    depth: Count  # blocks
    num_heads: Count  # of attention
    intermediate_size: Count  # hidden width of the MLP
    pixels: Pixels  # its outputs: 'normalized' as the encoder's input, or 'unit' in [0, 1] (RAEv2)
    noise_tau: NonNegative  # training noise on latents: deviation drawn from [0, noise_tau)
    # Train the positions too, as the reference does: they count in the clipped norm and decay
    train_constants: bool

    def __post_init__(self) -> None:
        """Checks heads, positions and the origin of weights."""
        check_heads("decoder", self.hidden_size, self.num_heads, rope=False)
        check_one_origin("decoder", self.pretrained, self.checkpoint)
        if self.hidden_size % 4:
            expected = "a multiple of 4 (2-D sine and cosine positions)"
            raise invalid_value("decoder.hidden_size", self.hidden_size, expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDTConfig(DDTSizes):
    """The DiT^DH: sizes and switches (`architecture.DDTSizes`), initial weights, label dropout."""

    pretrained: str  # .pt, directory or hub id that a new run starts (or samples) from; '' = none
    pretrained_weights: Literal["ema", "online"]  # of `pretrained`, if it holds both
    checkpoint: str  # workdir of a stage-2 run whose EMA a new run starts from; '' = none
    class_dropout: Probability  # chance that a training label becomes the null label
    # Train positions and time frequencies too, as the reference does: they count in the clipped
    # norm and decay
    train_constants: bool

    def __post_init__(self) -> None:
        """Checks heads, positions and the origin of weights."""
        check_one_origin("ddt", self.pretrained, self.checkpoint)
        for i, (width, heads) in enumerate(zip(self.hidden_size, self.num_heads, strict=True)):
            check_heads("ddt", width, heads, rope=self.use_rope, index=i)
        if self.use_pos_embed and self.hidden_size[0] % 4:
            expected = "a multiple of 4 because ddt.use_pos_embed"
            raise invalid_value("ddt.hidden_size[0]", self.hidden_size[0], expected)
        if self.base_depth >= self.depth[0]:
            expected = f"less than ddt.depth[0] = {self.depth[0]}; 0 for no second head"
            raise invalid_value("ddt.base_depth", self.base_depth, expected)
        if self.interval_embedding and (self.conditioning == "tokens" or self.base_depth):
            expected = "False with ddt.conditioning 'tokens' or ddt.base_depth > 0 (RAEv2)"
            raise invalid_value("ddt.interval_embedding", True, expected)


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Noise levels of training and sampling."""

    time_distribution: Literal["logit_normal", "uniform"]  # of the noise levels in training
    shift: Positive | None  # of times towards noise; None = sqrt(numbers per latent / shift_base)
    shift_base: Count  # numbers per latent (h * w * D) at which the shift is 1
    prediction: Literal["v", "x"]  # what the DiT^DH's outputs are: the velocity or the data
    base_weight: NonNegative  # of the second head's loss beside the first's; needs ddt.base_depth
