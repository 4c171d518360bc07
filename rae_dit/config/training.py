"""Config sections of training: data, optimizer, devices, checkpoints, metrics.

One frozen dataclass per section: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on.
"""

import dataclasses
from typing import Annotated, Literal

from rae_dit.architecture import Attention, Remat
from rae_dit.config.check import invalid_value
from rae_dit.config.rules import check_decay, in_steps
from rae_dit.ranges import Count, Decay, Natural, NonNegative, Positive, Probability, Range

# Metrics of a process's own clock and data, which may differ among processes
OWN_OF_PROCESS = ("speed/", "goodput/", "train/replaced_images")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data source and batches."""

    # 'digits' and 'synthetic' read no files; rae_dit/data has a module for each of the others.
    # 'latents' is what --mode=latents wrote, for stage 2 alone
    source: Literal["digits", "synthetic", "folder", "huggingface", "tfds", "tar", "latents"]
    path: str  # training images; a directory or a pattern; '' for sources that read no files
    validation_path: str  # held-out images, like `path`; '' = none, and no validation
    # Training crop: the center; a random place of the image at 1.5 times the size (stage 1); or a
    # random part of 8 to 100 % of it, scaled (probes). Validation takes the center
    crop: Literal["adm_center", "random", "random_resized"]
    max_bad_share: Probability  # of damaged images; more of them stop the run
    image_size: Count  # pixels, side of a training image = side of its reconstruction
    num_classes: Count  # labels are 0 ... num_classes - 1
    batch_size: Count  # images per optimizer step, over all devices and accumulation steps
    num_workers: Natural  # loader processes per host; 0 = load in the training process
    # Order of training images that lie in row groups (parquet): 'groups' shuffles the groups and
    # the rows of a window of them, so that a group is read once for several images; 'records'
    # shuffles all images at once. Of other images the order is the same. A run keeps its order.
    shuffle: Literal["records", "groups"]
    flip: bool  # mirror half of the training images
    # 'folder' only: the classes are directories named 0, 1, 2, ...; sorted as numbers instead of
    # strings, where 10 comes before 2
    numeric_classes: bool

    def __post_init__(self) -> None:
        """Checks that the source supports the other fields."""
        if self.source in ("digits", "synthetic"):
            reason = f"because {self.source!r} reads no files"
            if self.path:
                raise invalid_value("data.path", self.path, f"'' {reason}")
            if self.validation_path:
                raise invalid_value("data.validation_path", self.validation_path, f"'' {reason}")
            if self.crop != "adm_center":
                raise invalid_value("data.crop", self.crop, f"'adm_center' {reason}")
        if self.source == "latents" and self.crop != "adm_center":
            expected = (
                "'adm_center', of which cached latents are; mirroring is all that varies there"
            )
            raise invalid_value("data.crop", self.crop, expected)
        if self.numeric_classes and self.source != "folder":
            expected = f"False because data.source is {self.source!r}; it is for 'folder'"
            raise invalid_value("data.numeric_classes", True, expected)
        if self.source == "digits" and self.image_size % 8:
            raise invalid_value("data.image_size", self.image_size, "a multiple of 8 for 'digits'")
        if self.source == "digits" and self.num_classes != 10:
            raise invalid_value("data.num_classes", self.num_classes, "10 for 'digits'")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate; lengths in optimizer steps, or in epochs where given."""

    name: Literal["adamw", "sgd", "muon"]  # 'muon': Muon for matrices, AdamW for the rest
    learning_rate: Positive  # the highest; of every parameter
    warmup_steps: Natural  # steps before the decay begins
    warmup_from_zero: bool  # True: rises from 0; False: learning_rate during warmup_steps
    decay: Literal["constant", "linear", "cosine"]  # from warmup_steps to decay_end_step
    decay_end_step: Natural  # unused by 'constant'
    final_learning_rate: NonNegative  # from decay_end_step on; unused by 'constant'
    max_steps: Count  # steps at which training ends
    # The same three lengths in passes over the training images, of len(images) // data.batch_size
    # steps each; rounded to steps. Where one is given it wins, and config.json says its steps.
    warmup_epochs: NonNegative | None
    decay_end_epoch: NonNegative | None  # decay_end_step in epochs
    max_epochs: Positive | None  # max_steps in epochs
    beta1: Decay  # of AdamW, with the two below
    beta2: Decay  # decay of the second moment
    epsilon: Positive  # added to the root of the second moment
    momentum: Decay  # of 'sgd' and of Muon
    weight_decay: NonNegative  # decoupled; an L2 penalty for 'sgd'
    clip_norm: Positive | None  # global norm of the gradient; None = not clipped
    max_consecutive_bad_steps: Count  # loss or gradient not finite; looked at when logging
    accumulate_steps: Count  # parts a batch is cut into, computed one after the other
    # Goes back to the newest sound checkpoint, past the data since, when a logged loss is more than
    # so many times the median of the last `spike_window` logged ones; None = never looks.
    spike_factor: Annotated[float, Range(low=1, low_allowed=False)] | None
    spike_window: Count  # logged losses, of which there are one every metrics.log_every steps
    max_rollbacks: Natural  # of a run; the next spike ends it

    def __post_init__(self) -> None:
        """Checks the decay of the learning rate."""
        if self.decay == "constant" or self.in_epochs:
            return
        check_decay(
            "optim",
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            warmup_steps=self.warmup_steps,
            decay_end_step=self.decay_end_step,
        )

    @property
    def in_epochs(self) -> bool:
        """Whether a length is in epochs; `in_steps` converts it."""
        return {self.warmup_epochs, self.decay_end_epoch, self.max_epochs} != {None}

    def in_steps(self, steps_per_epoch: int) -> "OptimConfig":
        """Returns the section with every length in steps.

        Raises:
            ConfigError: the lengths do not fit each other, or training would have no step.
        """
        if not self.in_epochs:
            return self

        def steps(length: int, epochs: float | None) -> int:
            return in_steps(length, epochs, steps_per_epoch)

        max_steps = steps(self.max_steps, self.max_epochs)
        if max_steps == 0:
            expected = f"at least one step; an epoch has {steps_per_epoch}"
            raise invalid_value("optim.max_epochs", self.max_epochs, expected)
        return dataclasses.replace(
            self,
            warmup_steps=steps(self.warmup_steps, self.warmup_epochs),
            decay_end_step=steps(self.decay_end_step, self.decay_end_epoch),
            max_steps=max_steps,
            warmup_epochs=None,
            decay_end_epoch=None,
            max_epochs=None,
        )


@dataclasses.dataclass(frozen=True)
class EmaConfig:
    """Moving average of the parameters."""

    decay: Decay  # per optimizer step


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """Trade-offs of speed and memory; results agree up to rounding."""

    attention: Attention  # cudnn: GPU; splash: TPU; auto chooses
    scan_layers: bool  # True: a stack compiles as one block in a loop
    remat: Remat  # what the backward pass computes again
    # Directory of compiled programs, which later runs load instead; '' = none. The environment
    # variable JAX_COMPILATION_CACHE_DIR comes first.
    compile_cache: str


@dataclasses.dataclass(frozen=True)
class ShardingConfig:
    """Sharding of the parameters; a batch is always split over all devices."""

    fsdp: Count  # devices that share one copy of the parameters; 1 = a copy on each


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Steps that are saved and kept."""

    save_every: Count  # steps
    keep_last: Count  # checkpoints
    keep_every: Count | None  # multiples of so many steps are never deleted; None = no such steps
    # A metric such as 'val_ema/loss': a step at which it is the best so far is saved and stays
    # until a better one; '' = none
    best_metric: str
    best_mode: Literal["min", "max"]  # which values are better
    restore_from: str  # workdir or .../checkpoints/STEP; '' = latest of the own workdir

    def __post_init__(self) -> None:
        """Checks that `keep_every` is a multiple of `save_every`, and which metric is best."""
        if self.keep_every is not None and self.keep_every % self.save_every:
            expected = f"None or a multiple of checkpoint.save_every = {self.save_every}"
            raise invalid_value("checkpoint.keep_every", self.keep_every, expected)
        if self.best_metric.startswith(OWN_OF_PROCESS):
            expected = (
                "a metric of the model such as 'val_ema/loss'; each process measures this one for "
                "itself, so they would not agree on a step"
            )
            raise invalid_value("checkpoint.best_metric", self.best_metric, expected)


@dataclasses.dataclass(frozen=True)
class MetricsConfig:
    """Intervals of logging, validation, evaluation, samples and profiling."""

    log_every: Count  # steps
    # Logs attention logits and residual streams of each DiT^DH block, and Muon's updates, too
    telemetry: bool
    validate_every: Count  # steps
    validate_batches: Count  # of data.batch_size images; fewer where the data end
    evaluate_every: Count | None  # steps between evaluations of the EMA's samples; None = never
    evaluate_samples: Count  # images each of them generates
    # Steps between pictures of the EMA in pictures/step_N.png: the first sample.batch_size samples
    # of mode 'sample', or reconstructions of held-out images; None = no pictures
    sample_every: Count | None
    profile_step: Count | None  # first step of a jax.profiler trace in profile/; None = no trace
    profile_steps: Count  # length of the trace
    wandb_project: str  # of Weights & Biases, which must be installed; '' = none
