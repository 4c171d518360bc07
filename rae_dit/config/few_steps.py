"""Config section of the objectives 'trajectory' and 'mean_flow': generation in few steps.

Meaning, unit and range of each field. No defaults: they live in configs/. Ranges ride on the types
and are enforced on the way in (`check.py`); `__post_init__` checks what fields must agree on.
"""

import dataclasses
from typing import Literal

from rae_dit.config.check import invalid_value
from rae_dit.ranges import Count, Natural, NonNegative, Probability


@dataclasses.dataclass(frozen=True)
class FewStepConfig:
    """A teacher, and how a network with two times learns average velocities from it or from data.

    docs/few_steps.md has the stages; `objectives/mean_flow` and `objectives/trajectory` the
    equations.
    """

    # Velocity in MeanFlow's identity: the teacher's (distillation) or noise - data (fine-tuning)
    velocity: Literal["teacher", "data"]
    teacher: str  # workdir, checkpoint or file of a DiT^DH; '' = random weights
    guidance: Literal["cfg", "autoguidance", "internal"]  # of the teacher, as in `sample`
    guide_checkpoint: str  # of 'autoguidance': our stage-2 run or a third-party file; '' = none
    cfg_scale: NonNegative  # of the teacher's guidance; 1 = unguided
    cfg_interval: tuple[Probability, Probability]  # guided while low <= t <= high
    solver_steps: Count  # of the trajectories of 'trajectory': points ('official') or updates
    solver_grid: Literal["official", "full"]  # of that solver, and of the endpoint, as sample.grid
    pairs: Count  # of states that each trajectory gives; data.batch_size is a multiple
    # One row in so many has an interval, r < t, and the others r = t. data.batch_size is a multiple
    # of this number times devices and optim.accumulate_steps
    interval_every: Count
    adaptive_power: NonNegative  # p of the weight 1 / (error + constant)^p of each row; 0 = none
    adaptive_constant: NonNegative  # in units of the mean squared error of a row
    tangent_warmup_steps: Natural  # over which the correction (t - r) du/dt fades in; 0 = none
    # Fixed noises whose jumps are compared with the teacher's endpoint, and the points of its
    # solver, whenever the run validates; 0 = no comparison
    endpoint_samples: Natural
    endpoint_steps: Count  # points of the solver that finds the endpoint

    def __post_init__(self) -> None:
        """Checks guidance and trajectories."""
        if (self.guidance == "autoguidance") != bool(self.guide_checkpoint):
            expected = f"a path with few_step.guidance 'autoguidance' alone, not {self.guidance!r}"
            raise invalid_value("few_step.guide_checkpoint", self.guide_checkpoint, expected)
        low, high = self.cfg_interval
        if low > high:
            raise invalid_value("few_step.cfg_interval", (low, high), "(low, high), low <= high")
        for name in ("solver_steps", "endpoint_steps"):
            steps = getattr(self, name)
            if steps < 2:
                raise invalid_value(f"few_step.{name}", steps, "at least 2")
        if self.pairs > self.possible_pairs:
            expected = (
                f"at most {self.possible_pairs}, the pairs of states of few_step.solver_steps = "
                f"{self.solver_steps}"
            )
            raise invalid_value("few_step.pairs", self.pairs, expected)

    @property
    def possible_pairs(self) -> int:
        """Pairs of states on a trajectory."""
        states = self.solver_steps + (self.solver_grid == "full")
        return states * (states - 1) // 2
