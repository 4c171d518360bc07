"""A training run: its shared parts, its initial state, and the rollback after a spike."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rae_dit.checkpoint.manager import Checkpoints, restore_state
from rae_dit.config import Config
from rae_dit.data import pipeline
from rae_dit.data import position as data_position
from rae_dit.data.batches import Batches
from rae_dit.data.sources import Source
from rae_dit.flops import peak_flops, train_flops
from rae_dit.models.attention import choose_attention
from rae_dit.objectives.base import Tree
from rae_dit.training.history import DivergedError, History, check_rollbacks
from rae_dit.training.program import Program
from rae_dit.training.sharding import local_rows
from rae_dit.training.state import TrainState
from rae_dit.training.task import Task

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """Everything that the steps of a run share; setup/run.py opens one.

    Attributes:
        config: with all lengths in steps.
        mesh: over all devices of all processes.
        task: what is trained.
        program: the jitted functions.
        source: training records.
        validation: held-out records, or None.
        frozen: parameters of the networks that are used and not trained.
    """

    config: Config
    mesh: Mesh
    task: Task
    program: Program
    source: Source
    validation: Source | None
    frozen: Tree


def describe(run: Run) -> str:
    """Describes devices and settings of a run for its log, with what attention "auto" chose."""
    config, mesh = run.config, run.mesh
    attention: str = config.compute.attention
    if attention == "auto" and run.task.attention_shape is not None:
        tokens, head_width = run.task.attention_shape
        attention = choose_attention(
            mesh.devices.flat[0].platform,
            mesh.size,
            half=config.is_half,
            batch=config.data.batch_size // config.optim.accumulate_steps,
            tokens=tokens,
            head_width=head_width,
        )
        attention += f" over {tokens} tokens"
    return (
        f"{mesh.size} x {mesh.devices.flat[0].device_kind}, fsdp {config.sharding.fsdp}, "
        f"{config.precision}, attention {attention}, "
        f"layers {'scanned' if config.compute.scan_layers else 'unrolled'}, "
        f"remat {config.compute.remat}"
    )


def peak_images(run: Run) -> float | None:
    """Computes images a second at the devices' peak FLOP/s; None where the peak is not known."""
    peak = peak_flops(run.mesh.devices.flat[0].device_kind, run.config.precision)
    return None if peak is None else peak * run.mesh.size / train_flops(run.task.work)


def position(run: Run, step: int) -> dict[str, int | str]:
    """Gives the data position after `step` steps, which is saved beside the state."""
    config = run.config
    return data_position.position(
        run.source,
        step=step,
        seed=config.seed,
        batch_size=config.data.batch_size,
        shuffle=config.data.shuffle,
    )


def train_stream(run: Run, step: int, history: History) -> Batches:
    """Opens the batches after `step` steps, past those that were skipped; this process's share."""
    config = run.config
    return pipeline.train_batches(
        run.source,
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=step + history.skipped_batches,
        num_workers=config.data.num_workers,
        flip=config.data.flip,
        shuffle=config.data.shuffle,
        rows=local_rows(run.mesh, config.data.batch_size),
    )


def restore_or_create(run: Run, checkpoints: Checkpoints) -> tuple[Run, TrainState, History]:
    """Restores the newest state of the workdir, else `checkpoint.restore_from`, else creates one.

    The workdir comes first, so that a run started from elsewhere and then killed continues.

    Returns:
        The run, in the order of images that the state was trained in; the state; its history.
    """
    elsewhere = run.config.checkpoint.restore_from
    restored = checkpoints.restore(run.program.abstract)
    if restored is None and elsewhere:
        restored = restore_state(elsewhere, run.program.abstract)
    if restored is not None:
        state, saved = restored
        log.info("continuing from step %d", int(state.step))
        run = in_saved_order(run, saved)
        return run, state, read_history(run, int(state.step), saved, checkpoints)
    return run, initial_state(run), History()


def in_saved_order(run: Run, saved: Mapping[str, Any]) -> Run:
    """Returns the run with the order of images, `data.shuffle`, of a checkpoint's data position."""
    shuffle = data_position.saved_shuffle(saved)
    if shuffle == data_position.saved_shuffle(position(run, 0)):
        return run
    log.info("data.shuffle=%s, in which order the checkpoint's run began", shuffle)
    data = dataclasses.replace(run.config.data, shuffle=shuffle)
    return run._replace(config=dataclasses.replace(run.config, data=data))


def initial_state(run: Run) -> TrainState:
    """Creates the state of a new run, from the weights that the task loads, if any.

    Optimizer and discriminator always start from their initial state.
    """
    state = run.program.create()
    params = run.task.load_initial(run.mesh)
    if params is None:
        return state
    # A copy, because a step donates both.
    return dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params))


def read_history(run: Run, step: int, saved: dict[str, Any], checkpoints: Checkpoints) -> History:
    """Reads the history saved beside the state of `step`, after checking its data position.

    The best step is forgotten if another metric or mode counts now, or if it is not in this
    workdir.

    Raises:
        ChangedDataError: the state was trained on other data.
    """
    kept = saved.pop("history", None)  # None: saved before there was one
    history = History() if kept is None else History.from_json(kept)
    data_position.check_position(saved, position(run, step), run.source)
    wanted, best = run.config.checkpoint, history.best
    if best is None:
        return history
    same = best.metric == wanted.best_metric and history.best_mode in ("", wanted.best_mode)
    if same and checkpoints.has(best.step):
        return history
    return dataclasses.replace(history, best=None)


def roll_back(
    run: Run, state: TrainState, history: History, loss: float, checkpoints: Checkpoints
) -> tuple[TrainState, History]:
    """Goes back to the newest checkpoint from before a spike; the data continue where they are.

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
