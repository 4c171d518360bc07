"""Config sections of the modes that use a trained model.

One frozen dataclass per section: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on.
"""

import dataclasses
from typing import Annotated, Literal

from rae_dit.architecture import LatentStorage
from rae_dit.config.check import invalid_value
from rae_dit.ranges import Count, NonNegative, Positive, Probability, Range, Seed


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Sampler of the modes 'sample', 'evaluate' and 'sweep', and of evaluation during training."""

    num_samples: Count  # images
    num_steps: Count  # of the time grid: points ('official', 'sde') or updates ('full')
    # 'dopri5' chooses its own steps; 'mean_flow': num_steps jumps of a network with two times
    method: Literal["euler", "heun", "dopri5", "sde", "mean_flow"]
    grid: Literal["official", "full"]  # N points and N-1 updates, or N down to t = 0; not of 'sde'
    rtol: Positive  # relative error tolerance of 'dopri5'
    atol: Positive  # absolute error tolerance of 'dopri5'
    diffusion_norm: NonNegative  # noise of 'sde': w(t) = diffusion_norm * t; 0 = none
    last_step: Literal["mean", "euler", "none"]  # how 'sde' gets from last_step_size to t = 0
    last_step_size: Annotated[float, Range(0, 1, low_allowed=False, high_allowed=False)]  # a time
    # Away from the unlabeled model, a weaker one, or the second head of an RAEv2 network
    guidance: Literal["cfg", "autoguidance", "internal"]
    guide_checkpoint: str  # of 'autoguidance': our stage-2 run or a third-party file; '' = none
    cfg_scale: NonNegative  # of any guidance; 1 = unguided
    cfg_interval: tuple[Probability, Probability]  # guided while low <= t <= high
    internal_scale: NonNegative  # of internal guidance below one of the other two; 1 = none
    internal_interval: tuple[Probability, Probability]  # where that is in force
    internal_null_scale: NonNegative | None  # of that in CFG's branch without class; None = as it
    precision: Literal["fp8"] | None  # of the blocks of a DiT^DH; None = the config's `precision`
    labels: str  # '' = all classes, or for example '0,1,2' or '0-9'
    class_list: str  # file of class names to sample, one a line, in place of `labels`; '' = none
    class_names: str  # file of all classes' names, one a line from 0 on; '' = the data source's
    label_mode: Literal["equal", "random"]  # chosen classes in turn, or drawn for each image
    batch_size: Count  # images at once over all devices; rounded up to a multiple of their number
    output_dir: str  # '' = workdir/samples
    seed: Seed  # of the initial noise, of random labels, and of the noise of 'sde'

    def __post_init__(self) -> None:
        """Checks time grid, guidance and chosen classes."""
        if self.method == "sde" and self.num_steps < 2:
            raise invalid_value("sample.num_steps", self.num_steps, ">= 2 points for method 'sde'")
        if self.grid == "official" and self.num_steps < 2:
            raise invalid_value(
                "sample.num_steps", self.num_steps, ">= 2 points for grid 'official'"
            )
        if self.method == "mean_flow":
            self.check_jumps()
        if self.guidance == "autoguidance" and not self.guide_checkpoint:
            expected = "a workdir, checkpoint or file of the weaker model of 'autoguidance'"
            raise invalid_value("sample.guide_checkpoint", self.guide_checkpoint, expected)
        if self.guidance != "autoguidance" and self.guide_checkpoint:
            expected = f"'' because sample.guidance is {self.guidance!r}; set 'autoguidance'"
            raise invalid_value("sample.guide_checkpoint", self.guide_checkpoint, expected)
        if self.class_list and self.labels:
            expected = f"'' because sample.labels is {self.labels!r}; give one of the two"
            raise invalid_value("sample.class_list", self.class_list, expected)
        if self.guidance == "internal" and self.internal_scale != 1:
            expected = "1 because sample.guidance is 'internal', whose scale is sample.cfg_scale"
            raise invalid_value("sample.internal_scale", self.internal_scale, expected)
        if self.guidance != "cfg" and self.internal_null_scale is not None:
            expected = f"None because sample.guidance is {self.guidance!r}; it is for 'cfg'"
            raise invalid_value("sample.internal_null_scale", self.internal_null_scale, expected)
        for name in ("cfg_interval", "internal_interval"):
            low, high = getattr(self, name)
            if low > high:
                raise invalid_value(f"sample.{name}", (low, high), "(low, high), low <= high")

    def check_jumps(self) -> None:
        """Checks that nothing is asked for that method 'mean_flow' cannot do."""
        if self.grid != "full":
            raise invalid_value("sample.grid", self.grid, "'full' for method 'mean_flow'")
        for name in ("cfg_scale", "internal_scale"):
            scale = getattr(self, name)
            if scale != 1:
                expected = "1 for method 'mean_flow': guidance is part of what its network learned"
                raise invalid_value(f"sample.{name}", scale, expected)


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Mode 'sweep': samples and evaluates every combination; () = the value of `sample`."""

    cfg_scales: tuple[NonNegative, ...]  # values of sample.cfg_scale
    num_steps: tuple[Count, ...]  # values of sample.num_steps
    cfg_intervals: tuple[tuple[Probability, Probability], ...]  # values of sample.cfg_interval
    metric: str  # one of evaluate.metrics: plotted, and its best cell logged; '' = the first


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """Objective 'classification', mode 'probe': a linear layer on the mean of an image's tokens."""

    freeze_encoder: bool  # True: train the linear layer alone (a probe); False: the encoder too


@dataclasses.dataclass(frozen=True)
class StatsConfig:
    """Mode 'stats'."""

    output: (
        str  # file to write: .npz (with provenance) or .pt (official); '' = WORKDIR/statistics.npz
    )
    save_every: Count  # batches between saves of the state that a killed job resumes from

    def __post_init__(self) -> None:
        """Checks that the ending is one of the two."""
        if self.output and not self.output.endswith((".npz", ".pt")):
            raise invalid_value("stats.output", self.output, "'' or a file name in .npz or .pt")


@dataclasses.dataclass(frozen=True)
class LatentsConfig:
    """Mode 'latents'."""

    output: str  # directory to write; '' = WORKDIR/latents
    # 'fp8' is e4m3 with a scale for each channel of an image; bytes an element: 4, 2, 1
    storage: LatentStorage
    images_per_shard: Count  # a job that is killed repeats up to so many of each process
