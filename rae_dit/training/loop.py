"""The training loop: the one room with a clock and side effects, and no mathematics.

Rerunning the same command continues from the newest checkpoint in the workdir. What a step computes
depends on the state, the frozen networks and the batch alone; the batch depends on (seed, step)
alone; so a run that was stopped ends with the same bits as one that was not.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import jax

from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.config import Config, to_dict
from rae_dit.sampling.generate import NotFiniteError
from rae_dit.setup import models
from rae_dit.storage.files import write_json
from rae_dit.training.divergence import check_good
from rae_dit.training.history import History
from rae_dit.training.measure import evaluate, observe, validate
from rae_dit.training.metrics import MetricsWriter
from rae_dit.training.pictures import draw
from rae_dit.training.profile import Profile
from rae_dit.training.progress import Progress
from rae_dit.training.restart import restore_or_create, roll_back
from rae_dit.training.run import Run, describe, open_run, peak_images, position, train_stream
from rae_dit.training.sharding import make_mesh, place_batch
from rae_dit.training.state import TrainState
from rae_dit.training.weights_and_biases import WeightsAndBiases, check_installed
from rae_dit.workdir import workdir_lock

log = logging.getLogger(__name__)


def train(config: Config, workdir: Path) -> None:
    """Trains what `config.objective` says until `optim.max_steps`, from wherever it stands.

    Leaves in `workdir`: config.json, checkpoints/, metrics.jsonl and TensorBoard events. Asked to
    stop (multihost.py), it saves the step it has reached and returns.

    Raises:
        ConfigError: the config asks for what is not there, or another run is at work in `workdir`.
        DivergedError: `optim.max_consecutive_bad_steps` in a row were not finite, or the loss rose
            out of bounds (`optim.spike_factor`) more than `optim.max_rollbacks` times.
        ChangedDataError: the workdir's run was started on other data.
    """
    is_main = jax.process_index() == 0
    check_installed(config.metrics.wandb_project)
    with (
        workdir_lock(workdir) if is_main else nullcontext(),
        jax.default_matmul_precision(models.matmul_precision(config)),
        Checkpoints(
            workdir / "checkpoints",
            save_every=config.checkpoint.save_every,
            keep_last=config.checkpoint.keep_last,
            keep_every=config.checkpoint.keep_every,
        ) as checkpoints,
    ):
        run = open_run(config, make_mesh(config.sharding.fsdp))
        log.info(describe(run))
        state, history = restore_or_create(run, checkpoints)
        values, project = to_dict(run.config), config.metrics.wandb_project
        others = [WeightsAndBiases(project, workdir, values)] if project and is_main else []
        with MetricsWriter(workdir, is_main=is_main, others=others) as writer:
            writer.truncate(int(state.step))
            if is_main:
                write_json(workdir / "config.json", values)
            run_steps(run, state, history, checkpoints, writer, workdir)


def run_steps(
    run: Run,
    state: TrainState,
    history: History,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    workdir: Path,
) -> TrainState:
    """Takes the steps that are left, unless asked to stop; logs, validates, saves on the way."""
    config = run.config
    first = step = int(state.step)
    last = config.optim.max_steps
    if stopped_early(checkpoints, first):
        log.info("asked to stop before the first step; the same command continues")
        return state
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
            with progress.waiting():
                batch = next(batches)
            placed = place_batch(batch, run.mesh)
            state, metrics = run.program.step(state, run.frozen, placed)
            progress.begun(step, metrics["loss"])
            profile.after(step, metrics)

            values: dict[str, float] = {}
            is_logged = is_due(step, config.metrics.log_every, last)
            if is_logged:
                values |= {f"train/{name}": float(value) for name, value in metrics.items()}
                values["train/replaced_images"] = batches.replaced
                values["train/rollbacks"] = history.rollbacks
                values |= progress.rates(step) | observe(run, state, placed)
            if is_due(step, config.metrics.validate_every, last):
                values |= validate(run, state)
            if is_due(step, config.metrics.evaluate_every, last):
                with progress.paused(), overlooking(step):
                    values |= evaluate(run, state, workdir)
            if is_due(step, config.metrics.sample_every, last):
                path = workdir / "pictures" / f"step_{step}.png"
                with progress.paused(), overlooking(step):
                    draw(run, state, path)
                    writer.write_picture(step, "samples", path)
            if values:
                writer.write(step, values)
                log.info(progress.line(step, values))

            if is_logged:
                limit = config.optim.max_consecutive_bad_steps
                check_good(step, int(state.last_good_step), limit)
                loss, window = values["train/loss"], config.optim.spike_window
                if history.is_spike(loss, factor=config.optim.spike_factor, window=window):
                    state, history = roll_back(run, state, history, loss, checkpoints)
                    progress.went_back(step, int(state.step))
                    step = int(state.step)
                    writer.truncate(step)
                    continue
                if step % config.metrics.log_every == 0:  # the last step may be another
                    history = history.with_loss(step, loss, window=window)
            history = history.with_values(
                step, values, config.checkpoint.best_metric, config.checkpoint.best_mode
            )
            checkpoints.save(
                step,
                state,
                position(run, step) | {"history": history.to_json()},
                force=step == last or (history.best is not None and history.best.step == step),
                best=history.best,
            )
            if checkpoints.reached_preemption(step) and step < last:
                saved = checkpoints.latest_step()  # waits for the write
                log.info(
                    "asked to stop: saved step %d of %d; the same command continues", saved, last
                )
                return state
    log.info("done: step %d of %d", last, last)
    return state


def is_due(step: int, every: int | None, last: int) -> bool:
    """Whether something happens at this step that happens every so often, and at the last one."""
    return every is not None and (step % every == 0 or step == last)


@contextmanager
def overlooking(step: int) -> Iterator[None]:
    """Samples that are not finite are a warning here: training goes by its own losses."""
    try:
        yield
    except NotFiniteError as error:
        log.warning("step %d, samples of the EMA: %s", step, error)


def stopped_early(checkpoints: Checkpoints, first: int) -> bool:
    """Whether this run was asked to stop while it loaded; from here on no notice is missed.

    A notice is filed under the number asked about last, plus one. One that came before anybody
    asked is therefore found under 1, and one that comes while the first step compiles would be too,
    where a continued run never looks: asking about `first` files it under `first + 1`.
    """
    return checkpoints.reached_preemption(1) or checkpoints.reached_preemption(first)
