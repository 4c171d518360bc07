"""Which checkpoints stay on disk: the newest, every n-th, the best, and nothing else."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import checkpoint_managers

from rae_dit.storage.files import write_json


@dataclasses.dataclass(frozen=True)
class Best:
    """The best step of a run so far, by a metric.

    Attributes:
        step: number of finished steps.
        metric: its name, such as 'val_ema/loss'.
        value: of the metric at that step.
    """

    step: int
    metric: str
    value: float


class KeepBest(checkpoint_managers.PreservationPolicy):
    """Keeps the best step, and names it in `best.json` once it is on disk.

    The file is for people and scripts; what the run itself knows is saved beside its state.
    """

    def __init__(self) -> None:
        """Keeps none."""
        self._step: int | None = None
        self._unwritten: Best | None = None

    def follow(self, best: Best | None) -> None:
        """Keeps this step from now on; None for none. It may be about to be saved."""
        self._step = None if best is None else best.step
        self._unwritten = best

    def write(self, directory: epath.Path) -> None:
        """Writes `best.json`, on process 0; to be called when all that was saved is on disk."""
        if self._unwritten is not None and jax.process_index() == 0:
            write_json(Path(directory) / "best.json", dataclasses.asdict(self._unwritten))
        self._unwritten = None

    def forget(self) -> None:
        """Writes nothing after all: the save has failed."""
        self._unwritten = None

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        """For each checkpoint, whether it stays."""
        return [checkpoint.step == self._step for checkpoint in checkpoints]


def preservation_policy(
    keep_last: int, keep_every: int | None, best: KeepBest
) -> checkpoint_managers.PreservationPolicy:
    """Keeps what any of the three wants to keep.

    Args:
        keep_last: how many of the newest steps stay.
        keep_every: multiples of this stay; None for none.
        best: the best step.

    Raises:
        ValueError: a number is below 1.
    """
    if keep_last < 1:
        raise ValueError(f"checkpoint.keep_last is {keep_last}; it must be at least 1")
    if keep_every is not None and keep_every < 1:
        raise ValueError(f"checkpoint.keep_every is {keep_every}; use None or at least 1")
    policies: list[Any] = [checkpoint_managers.LatestN(keep_last), best]
    if keep_every is not None:
        policies.append(checkpoint_managers.EveryNSteps(keep_every))
    return checkpoint_managers.AnyPreservationPolicy(policies)
