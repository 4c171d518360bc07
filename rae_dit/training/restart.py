"""Where a run goes on: at its newest checkpoint, at another run's, or before a spike."""

import dataclasses
import logging
from typing import Any

import jax

from rae_dit.checkpoint.manager import Checkpoints, restore_state
from rae_dit.data import pipeline
from rae_dit.setup import weights
from rae_dit.training.divergence import DivergedError, check_rollbacks
from rae_dit.training.history import History
from rae_dit.training.run import Run, position
from rae_dit.training.state import TrainState

log = logging.getLogger(__name__)


def restore_or_create(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, History]:
    """The newest state of the workdir, else that at `checkpoint.restore_from`, else a new one.

    The workdir comes first, so that a run started from elsewhere and then killed continues.
    """
    elsewhere = run.config.checkpoint.restore_from
    restored = checkpoints.restore(run.program.abstract)
    if restored is None and elsewhere:
        restored = restore_state(elsewhere, run.program.abstract)
    if restored is None:
        state = run.program.create()
        return weights.start_from_pretrained(run.config, state, run.mesh), History()
    state, saved = restored
    log.info("continuing from step %d", int(state.step))
    return state, read_history(run, int(state.step), saved, checkpoints)


def read_history(run: Run, step: int, saved: dict[str, Any], checkpoints: Checkpoints) -> History:
    """What was saved beside the state of `step`, once its data are seen to be those of this run.

    The best step is forgotten if another metric counts now, or if it is not in this workdir.
    """
    kept = saved.pop("history", None)  # None: saved before there was one
    history = History() if kept is None else History.from_json(kept)
    pipeline.check_position(saved, position(run, step))
    metric, best = run.config.checkpoint.best_metric, history.best
    if best is None or (best.metric == metric and checkpoints.has(best.step)):
        return history
    return dataclasses.replace(history, best=None)


def roll_back(
    run: Run, state: TrainState, history: History, loss: float, checkpoints: Checkpoints
) -> tuple[TrainState, History]:
    """Goes back to the newest checkpoint from before a spike; the data go on where they are.

    Raises:
        DivergedError: it has gone back too often, or there is no such checkpoint.
    """
    spiked, sound = int(state.step), history.sound_step
    check_rollbacks(history, spiked, run.config.optim.max_rollbacks)
    jax.tree.map(lambda leaf: leaf.delete(), state)  # there may be room for one state only
    restored = checkpoints.restore(run.program.abstract, newest=sound)
    if restored is None:
        raise DivergedError(
            f"the loss at step {spiked} is a spike (optim.spike_factor), and no checkpoint up to "
            f"step {sound} is there to go back to; save more often (checkpoint.save_every) or keep "
            "more (checkpoint.keep_last)"
        )
    state, saved = restored
    step = int(state.step)
    log.warning(
        "loss %.3g at step %d is a spike: back to step %d, past the data since", loss, spiked, step
    )
    older = read_history(run, step, saved, checkpoints)
    return state, older.after_rollback(history, back_to=step, spiked=spiked)
