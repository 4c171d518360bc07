"""Fields of the modes that use a trained model.

One frozen dataclass per room: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on.
"""

import dataclasses
from typing import Literal

from rae_dit.config.check import Count, NonNegative, Positive, Probability, Seed, refusal


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
