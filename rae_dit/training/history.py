"""History of a run, kept beside its state: recent losses, rollbacks, the best step.

It is saved with every checkpoint, as JSON, so that a run that was interrupted decides as one that
was not. It is made of replicated numbers alone, so that all processes decide the same.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any, Self

from rae_dit.checkpoint.retention import Best
from rae_dit.config import ConfigError


class DivergedError(RuntimeError):
    """Training diverged; all saved checkpoints predate it."""


@dataclasses.dataclass(frozen=True)
class History:
    """Memory of a run up to a step.

    Attributes:
        losses: the newest logged training losses that were no spikes, oldest first; none are kept
            without `optim.spike_factor`.
        sound_step: newest step at which a loss was logged and no spike; states later than that
            have not been checked for a spike.
        rollbacks: how often the run went back.
        skipped_batches: how far the data are ahead: step s trains on batch s + skipped_batches.
        best: the best step by `checkpoint.best_metric`; None before it was measured.
        best_mode: `checkpoint.best_mode` by which it is; "" where that was not saved.
    """

    losses: tuple[float, ...] = ()
    sound_step: int = 0
    rollbacks: int = 0
    skipped_batches: int = 0
    best: Best | None = None
    best_mode: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads the dict that `to_json` makes."""
        best = None if values["best"] is None else Best(**values["best"])
        return cls(**(dict(values) | {"losses": tuple(values["losses"]), "best": best}))

    def to_json(self) -> dict[str, Any]:
        """Makes a dict for JSON."""
        return dataclasses.asdict(self) | {"losses": list(self.losses)}

    def is_spike(self, loss: float, *, factor: float | None, window: int) -> bool:
        """Tells whether a loss is more than `factor` times the median of the last `window` losses.

        Never before there are so many, nor without a factor; a loss that is not finite is a bad
        step, which changed nothing, and no spike.
        """
        if factor is None or len(self.losses) < window or not math.isfinite(loss):
            return False
        return loss > factor * statistics.median(self.losses)

    def with_loss(self, step: int, loss: float, *, window: int) -> Self:
        """Returns the history after a logged loss that is no spike."""
        losses = (*self.losses, loss)[-window:] if math.isfinite(loss) else self.losses
        return dataclasses.replace(self, losses=losses, sound_step=step)

    def after_rollback(self, newer: "History", *, back_to: int, spiked: int) -> Self:
        """Returns this history, of step `back_to`, after `newer` saw a spike at step `spiked`.

        The data continue where they are: the batches that led into the spike are not seen again.
        """
        return dataclasses.replace(
            self,
            rollbacks=newer.rollbacks + 1,
            skipped_batches=newer.skipped_batches + spiked - back_to,
        )

    def with_values(self, step: int, values: Mapping[str, float], metric: str, mode: str) -> Self:
        """Returns the history after the metrics of a step.

        Args:
            step: number of finished steps.
            values: all metrics of the step; most steps have none.
            metric: the one that checkpoints are compared by, '' for none. A value that is not
                finite is never the best.
            mode: "min" or "max", whichever is better. An equal value is not better.

        Raises:
            ConfigError: the metric's section was measured, and it has no such metric.
        """
        beside = [name for name in values if name.split("/")[0] == metric.split("/")[0]]
        if metric not in values:
            if metric and beside:
                raise ConfigError(
                    f"checkpoint.best_metric: got {metric!r}; expected one of {', '.join(beside)}"
                )
            return self
        value, before = values[metric], None if self.best is None else self.best.value
        if not math.isfinite(value):
            return self
        if before is None or (value < before if mode == "min" else value > before):
            return dataclasses.replace(self, best=Best(step, metric, value), best_mode=mode)
        return self


def check_good(step: int, last_good_step: int, limit: int) -> None:
    """Ends a run whose steps have all been skipped for too long.

    Args:
        step: steps done.
        last_good_step: the newest of them whose loss and gradient were finite.
        limit: `optim.max_consecutive_bad_steps`.

    Raises:
        DivergedError: so many steps in a row were skipped.
    """
    if step - last_good_step >= limit:
        raise DivergedError(
            f"loss or gradient was not finite at every step from {last_good_step + 1} to {step}; "
            f"optim.max_consecutive_bad_steps allows fewer than {limit} in a row. Continue with a "
            "lower optim.learning_rate or precision='fp32', and look at the images of these steps"
        )


def check_rollbacks(history: History, step: int, limit: int) -> None:
    """Ends a run that has gone back too often.

    Args:
        history: before the spike.
        step: that of the spike.
        limit: `optim.max_rollbacks`.

    Raises:
        DivergedError: it went back so often already.
    """
    if history.rollbacks >= limit:
        raise DivergedError(
            f"the loss at step {step} is a spike (optim.spike_factor), and the run went back "
            f"{history.rollbacks} times already; optim.max_rollbacks allows {limit}. Continue from "
            f"a step up to {history.sound_step} with a lower optim.learning_rate"
        )
