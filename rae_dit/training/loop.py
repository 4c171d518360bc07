"""The training loop: batch, step, hooks, log, roll back after a spike, save.

What a step computes depends on the state, the frozen networks and the batch alone; the batch
depends on (seed, step) alone; so a run that was stopped ends with the same bits as one that was
not.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath

import jax

from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.multihost import Preemption
from rae_dit.training.goodput import Goodput
from rae_dit.training.history import History, check_good
from rae_dit.training.hook import Hook, is_due
from rae_dit.training.metrics import MetricsWriter
from rae_dit.training.profile import Profile
from rae_dit.training.progress import Progress, Throttle
from rae_dit.training.run import Run, peak_images, position, roll_back, train_stream
from rae_dit.training.sharding import shard_batch
from rae_dit.training.state import TrainState

log = logging.getLogger(__name__)


def run_steps(
    run: Run,
    state: TrainState,
    history: History,
    *,
    checkpoints: Checkpoints,
    preemption: Preemption,
    hooks: Sequence[Hook],
    writer: MetricsWriter,
    goodput: Goodput,
    workdir: Path,
    wait_for_program: Callable[[], None] = lambda: None,
    before_save: Callable[[], None] = lambda: None,
) -> TrainState:
    """Takes the steps that are left up to `optim.max_steps`, unless asked to stop.

    Args:
        run: what the steps share.
        state: of the last finished step; donated.
        history: of the same step.
        checkpoints: where states are saved.
        preemption: ends the run early, with a saved step.
        hooks: called in this order, each as often as it says.
        writer: takes the metrics.
        goodput: books the time.
        workdir: where a profile goes.
        wait_for_program: returns once the step is compiled, where that goes on elsewhere.
        before_save: called before a checkpoint is written or, after a spike, set aside.

    Returns:
        The last state.

    Raises:
        DivergedError: too many steps in a row were skipped, or the run went back too often.
    """
    config = run.config
    first, last = int(state.step), config.optim.max_steps
    if preemption.reached_before(first):
        log.info("asked to stop before the first step; the same command continues")
        return state
    if first < last:
        log.info("compiling the first step: minutes for large models, less from the cache")
    step, throttle = first, Throttle()
    with (
        train_stream(run, first, history) as batches,
        Profile(workdir, config.metrics.profile_step, config.metrics.profile_steps) as profile,
        Progress(
            first_step=first,
            max_steps=last,
            batch_size=config.data.batch_size,
            peak_images=peak_images(run),
            live=jax.process_index() == 0,
        ) as progress,
    ):
        while step < last:
            step += 1
            profile.before(step)
            with progress.waiting(), goodput.spending("data_wait"):
                local = next(batches)
            batch = shard_batch(local, run.mesh)
            with goodput.taking(step):
                wait_for_program()
                state, metrics = run.program.step(state, run.frozen, batch)
                progress.update(step - throttle.add(metrics["loss"]))
            profile.after(step, metrics)

            values: dict[str, float | Path] = {}
            is_logged = is_due(step, config.metrics.log_every, last)
            if is_logged:
                values |= {f"train/{name}": float(value) for name, value in metrics.items()}
                values["train/replaced_images"] = batches.replaced
                values["train/rollbacks"] = history.rollbacks
                values |= progress.rates(step)
                goodput.count_bad(int(state.bad_steps))
                values |= goodput.metrics()
            for hook in hooks:
                if hook.is_due(step, last):
                    with progress.paused(), goodput.spending(hook.activity):
                        values |= hook.call(step, state, batch)
            scalars = write_values(writer, step, values)
            if scalars:
                log.info(progress.line(step, scalars))

            if is_logged:
                check_good(step, int(state.last_good_step), config.optim.max_consecutive_bad_steps)
                loss, window = scalars["train/loss"], config.optim.spike_window
                if history.is_spike(loss, factor=config.optim.spike_factor, window=window):
                    with goodput.spending("restore"):
                        before_save()
                        state, history = roll_back(run, state, history, loss, checkpoints)
                    goodput.went_back(int(state.step), int(state.bad_steps))
                    progress.went_back(step, int(state.step))
                    step = int(state.step)
                    writer.truncate(step)
                    continue
                if step % config.metrics.log_every == 0:  # the last step may be another
                    history = history.with_loss(step, loss, window=window)
            history = history.with_values(
                step, scalars, config.checkpoint.best_metric, config.checkpoint.best_mode
            )
            preempted = preemption.reached(step)
            is_best = history.best is not None and history.best.step == step
            with progress.paused(), goodput.spending("save"), preemption.suspended():
                checkpoints.save(
                    step,
                    state,
                    position(run, step) | {"history": history.to_json()},
                    force=step == last or preempted or is_best,
                    best=history.best,
                    before=before_save,
                )
            if preempted and step < last:
                with goodput.spending("save"), preemption.suspended():
                    saved = checkpoints.latest_step()  # waits for the write
                log.info("asked to stop: saved step %d of %d; run again to continue", saved, last)
                return state
    log.info("done: step %d of %d", last, last)
    return state


def write_values(
    writer: MetricsWriter, step: int, values: Mapping[str, float | Path]
) -> dict[str, float]:
    """Writes the metrics and pictures of a step; returns the metrics."""
    scalars: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, PurePath):
            writer.write_picture(step, name, value)
            log.info("step %d: %s", step, value)
        else:
            scalars[name] = value
    if scalars:
        writer.write(step, scalars)
    return scalars
