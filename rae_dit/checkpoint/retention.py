"""Retention of checkpoints: the newest, every n-th and the best stay on disk.

The best step is ours and not Orbax's BestN: that one stores metrics as an item of its own in each
step, prefers the newer of two equal values, and cannot tell which metric an old step was ranked by.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import checkpoint_managers

from rae_dit.storage.files import write_json
from rae_dit.storage.places import is_committed


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

    The file is for people and scripts; the run itself reads the history saved with its state.
    """

    def __init__(self) -> None:
        """Starts without a best step."""
        self._step: int | None = None
        self._unwritten: Best | None = None

    def follow(self, best: Best | None) -> None:
        """Keeps this step, which may not be saved yet, from now on; None for none."""
        self._step = None if best is None else best.step
        self._unwritten = best

    def write(self, directory: Path) -> None:
        """Writes `best.json` on process 0; call it once all saves are on disk."""
        if self._unwritten is not None and jax.process_index() == 0:
            write_json(directory / "best.json", dataclasses.asdict(self._unwritten))
        self._unwritten = None

    def write_if_saved(self, directory: Path) -> None:
        """Writes `best.json` on process 0 if its step is on disk by now; never waits.

        On a disk a step gets its name when it is whole, so a directory of that name is enough.
        """
        if self._unwritten is None or jax.process_index() > 0:
            return
        step = directory / str(self._unwritten.step)
        if step.is_dir() and is_committed(step):
            self.write(directory)

    def forget(self) -> None:
        """Cancels the pending write of `best.json`, because the save failed."""
        self._unwritten = None

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        """Tells for each checkpoint whether it stays."""
        return [checkpoint.step == self._step for checkpoint in checkpoints]


def preservation_policy(
    keep_last: int, keep_every: int | None, best: KeepBest
) -> checkpoint_managers.PreservationPolicy:
    """Combines the three policies: a step stays if any of them keeps it.

    Args:
        keep_last: how many of the newest steps stay.
        keep_every: multiples of this stay; None for none.
        best: the best step.

    Raises:
        ValueError: a number is below 1.
    """
    if keep_last < 1:
        raise ValueError(f"checkpoint.keep_last: got {keep_last}; expected at least 1")
    if keep_every is not None and keep_every < 1:
        raise ValueError(f"checkpoint.keep_every: got {keep_every}; expected None or at least 1")
    policies: list[Any] = [checkpoint_managers.LatestN(keep_last), best]
    if keep_every is not None:
        policies.append(checkpoint_managers.EveryNSteps(keep_every))
    return checkpoint_managers.AnyPreservationPolicy(policies)
