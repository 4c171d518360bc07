"""When training has gone wrong: steps that are not finite, and losses that jump."""

from rae_dit.training.history import History


class DivergedError(RuntimeError):
    """Training goes nowhere any more; the checkpoints are those of better times."""


def check_good(step: int, last_good_step: int, limit: int) -> None:
    """Ends a run that learns nothing any more; the parameters are those of its last good step.

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
