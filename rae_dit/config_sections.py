"""Fields of the configuration, one frozen dataclass per room: meaning, unit and range of each.

No default values: they live in configs/. Ranges ride on the types and are enforced on the way in
(`config_check.py`); `__post_init__` checks what fields of one section must agree on.
"""

import dataclasses
from typing import Annotated, Literal

from rae_dit.config_check import (
    Count,
    Decay,
    Natural,
    NonNegative,
    Positive,
    Probability,
    Range,
    refusal,
)
from rae_dit.config_rules import check_heads, check_one_origin

Seed = Annotated[int, Range(low=0, high=2**32 - 1)]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from."""

    # 'digits' and 'synthetic' read no files; rae_dit/data has a module for each of the others
    source: Literal["digits", "synthetic", "folder", "huggingface", "tfds", "tar"]
    path: str  # training images; a directory or a pattern; '' for sources that read no files
    validation_path: str  # held-out images, like `path`; '' = none, and no validation
    crop: Literal["adm_center", "random"]  # training crop; validation takes the centre
    max_bad_share: Probability  # of damaged images; more of them stop the run
    image_size: Count  # pixels, side of a training image = side of its reconstruction
    num_classes: Count
    batch_size: Count  # images per optimiser step, over all devices and accumulation steps
    num_workers: Natural  # loader processes per host; 0 = load in the training process
    flip: bool  # mirror half of the training images

    def __post_init__(self) -> None:
        """Checks what the source can deliver."""
        if self.source in ("digits", "synthetic"):
            reason = f"because {self.source!r} reads no files"
            if self.path:
                raise refusal("data.path", self.path, f"'' {reason}")
            if self.validation_path:
                raise refusal("data.validation_path", self.validation_path, f"'' {reason}")
            if self.crop != "adm_center":
                raise refusal("data.crop", self.crop, f"'adm_center' {reason}")
        if self.source == "digits" and self.image_size % 8:
            raise refusal("data.image_size", self.image_size, "a multiple of 8 for 'digits'")
        if self.source == "digits" and self.num_classes != 10:
            raise refusal("data.num_classes", self.num_classes, "10 for 'digits'")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The frozen representation encoder; weights from elsewhere must have the sizes given here."""

    family: Literal["dinov2", "siglip", "mae"]
    pretrained: str  # hub id or directory; '' = random weights, or those of `checkpoint`
    checkpoint: str  # workdir of a run of ours with objective 'classification'; '' = none
    statistics: str  # mean and variance of latents, .npz or .pt; '' = none
    input_size: Count  # pixels, side of the image as the encoder sees it (resized before)
    position_grid: Count  # side of its position table, in patches; interpolated if they are others
    image_mean: tuple[Probability, Probability, Probability]  # of its images in [0, 1], per channel
    image_std: tuple[Positive, Positive, Positive]
    patch_size: Count  # pixels
    hidden_size: Count  # width of a token = channels of the latent
    depth: Count  # blocks
    num_heads: Count
    mlp_ratio: Positive  # hidden width of the MLP / hidden_size
    num_registers: Natural  # extra tokens; 'dinov2' only

    def __post_init__(self) -> None:
        """Checks heads, patches and the origin of weights."""
        check_heads("encoder", self.hidden_size, self.num_heads, rope=False)
        check_one_origin("encoder", self.pretrained, self.checkpoint)
        if self.input_size % self.patch_size:
            expected = f"a multiple of encoder.patch_size = {self.patch_size}"
            raise refusal("encoder.input_size", self.input_size, expected)
        if self.num_registers and self.family != "dinov2":
            raise refusal("encoder.num_registers", self.num_registers, f"0 for {self.family!r}")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The ViT that turns latents into pixels."""

    pretrained: str  # hub id, directory or .pt file; '' = random weights, or those of `checkpoint`
    checkpoint: str  # workdir of a run of ours with objective 'reconstruction'; '' = none
    patch_size: Count  # pixels per latent cell and side
    hidden_size: Count
    depth: Count  # blocks
    num_heads: Count
    intermediate_size: Count  # hidden width of the MLP
    noise_tau: NonNegative  # training noise on latents: deviation drawn from [0, noise_tau)

    def __post_init__(self) -> None:
        """Checks heads, positions and the origin of weights."""
        check_heads("decoder", self.hidden_size, self.num_heads, rope=False)
        check_one_origin("decoder", self.pretrained, self.checkpoint)
        if self.hidden_size % 4:
            expected = "a multiple of 4 (2-D sine and cosine positions)"
            raise refusal("decoder.hidden_size", self.hidden_size, expected)


@dataclasses.dataclass(frozen=True)
class DDTConfig:
    """DiT^DH; pairs are (backbone, wide head)."""

    pretrained: str  # .pt, directory or hub id that a new run starts, or samples, from; '' = none
    patch_size: Count  # latent cells per token and side
    hidden_size: tuple[Count, Count]
    depth: tuple[Count, Count]  # blocks
    num_heads: tuple[Count, Count]
    mlp_ratio: Positive  # SwiGLU uses 2/3 of it
    class_dropout: Probability  # chance that a training label becomes the null label
    use_qknorm: bool
    use_swiglu: bool
    use_rope: bool
    use_rmsnorm: bool
    use_pos_embed: bool  # fixed 2-D sine and cosine positions on the backbone's tokens

    def __post_init__(self) -> None:
        """Checks heads and positions."""
        for i, (width, heads) in enumerate(zip(self.hidden_size, self.num_heads, strict=True)):
            check_heads("ddt", width, heads, rope=self.use_rope, index=i)
        if self.use_pos_embed and self.hidden_size[0] % 4:
            expected = "a multiple of 4 because ddt.use_pos_embed"
            raise refusal("ddt.hidden_size[0]", self.hidden_size[0], expected)


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Noise levels of training and sampling."""

    time_distribution: Literal["logit_normal", "uniform"]
    shift: Positive | None  # of times towards noise; None = sqrt(numbers per latent / shift_base)
    shift_base: Count  # numbers per latent (h * w * D) at which the shift is 1


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW and its learning rate; lengths in optimiser steps."""

    learning_rate: Positive
    warmup_steps: Natural
    warmup_from_zero: bool  # True: rises from 0; False: learning_rate during warmup_steps
    decay: Literal["constant", "linear", "cosine"]  # from warmup_steps to decay_end_step
    decay_end_step: Natural  # unused by 'constant'
    final_learning_rate: NonNegative  # from decay_end_step on; unused by 'constant'
    max_steps: Count
    beta1: Decay
    beta2: Decay
    epsilon: Positive
    weight_decay: NonNegative
    clip_norm: Positive  # global norm of the gradient
    max_consecutive_bad_steps: Count  # loss or gradient not finite; looked at when logging
    accumulate_steps: Count  # parts a batch is cut into, computed one after the other

    def __post_init__(self) -> None:
        """Checks that the learning rate has room to fall."""
        if self.decay == "constant":
            return
        if self.decay_end_step <= self.warmup_steps:
            expected = f"more than optim.warmup_steps = {self.warmup_steps}"
            raise refusal("optim.decay_end_step", self.decay_end_step, expected)
        if self.final_learning_rate > self.learning_rate:
            expected = f"at most optim.learning_rate = {self.learning_rate}"
            raise refusal("optim.final_learning_rate", self.final_learning_rate, expected)


@dataclasses.dataclass(frozen=True)
class EmaConfig:
    """Moving average of the parameters."""

    decay: Decay  # per optimiser step


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """Speed against memory; results agree up to rounding."""

    attention: Literal["auto", "xla", "cudnn"]
    scan_layers: bool  # True: a stack compiles as one block in a loop
    remat: Literal["none", "dots", "full"]  # what the backward pass computes again


@dataclasses.dataclass(frozen=True)
class ShardingConfig:
    """How parameters lie on devices; a batch is split over all devices in any case."""

    fsdp: Count  # devices that share one copy of the parameters; 1 = a copy on each


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which steps are saved and kept."""

    save_every: Count  # steps
    keep_last: Count  # checkpoints
    keep_every: Count | None  # multiples of so many steps are never deleted; None = no such steps
    restore_from: str  # workdir or .../checkpoints/STEP; '' = latest of the own workdir

    def __post_init__(self) -> None:
        """Checks that steps to keep are steps that are saved."""
        if self.keep_every is not None and self.keep_every % self.save_every:
            expected = f"None or a multiple of checkpoint.save_every = {self.save_every}"
            raise refusal("checkpoint.keep_every", self.keep_every, expected)


@dataclasses.dataclass(frozen=True)
class MetricsConfig:
    """When numbers are written."""

    log_every: Count  # steps
    validate_every: Count  # steps
    validate_batches: Count  # of data.batch_size images; fewer where the data end


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Mode 'sample'; 'evaluate' uses the same sampler."""

    num_samples: Count  # images
    num_steps: Count  # of the time grid: points ('official') or updates ('full')
    method: Literal["euler", "heun", "dopri5"]  # 'dopri5' chooses its own steps
    grid: Literal["official", "full"]  # N points and N-1 updates, or N updates down to t = 0
    rtol: Positive  # tolerated error of 'dopri5' relative to the latents
    atol: Positive  # tolerated error besides
    cfg_scale: NonNegative  # 1 = unguided
    cfg_interval: tuple[Probability, Probability]  # guided while low <= t <= high
    labels: str  # '' = all classes in turn, or for example '0,1,2' or '0-9'
    batch_size: Count  # images at once, over all devices
    output_dir: str  # '' = workdir/samples
    seed: Seed  # of the initial noise

    def __post_init__(self) -> None:
        """Checks time grid and guidance interval."""
        if self.grid == "official" and self.num_steps < 2:
            raise refusal("sample.num_steps", self.num_steps, ">= 2 points for grid 'official'")
        if self.cfg_interval[0] > self.cfg_interval[1]:
            raise refusal("sample.cfg_interval", self.cfg_interval, "(low, high), low <= high")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Mode 'evaluate'."""

    num_samples: Count  # images, unguided and again with sample.cfg_scale if that is not 1
