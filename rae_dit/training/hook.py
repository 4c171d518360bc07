"""A hook: a function that the training loop calls every so often."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from rae_dit.objectives.base import Tree
from rae_dit.training.goodput import Activity
from rae_dit.training.state import TrainState

Values = Mapping[str, float | Path]
"""Metrics by name; a Path is that of a PNG to show beside them."""


class Hook(NamedTuple):
    """A function that the loop calls every so often, and after the last step.

    Attributes:
        every: steps between calls; None for never.
        call: (step, state, batch) -> metrics and pictures. All processes call it. The state's
            arrays are gone after the next step.
        activity: under which its time is booked (goodput.py).
    """

    every: int | None
    call: Callable[[int, TrainState, Tree], Values]
    activity: Activity = "validation"

    def is_due(self, step: int, last: int) -> bool:
        """Tells whether to call it after `step` of a run of `last` steps."""
        return is_due(step, self.every, last)


def is_due(step: int, every: int | None, last: int) -> bool:
    """Tells whether what happens every so many steps, and after the last one, happens now."""
    return every is not None and (step % every == 0 or step == last)
