"""--mode=train: trains the config's objective, resuming from the latest checkpoint."""

import contextlib
import functools
import logging
from concurrent.futures import Future
from pathlib import Path

import jax

from rae_dit.background import in_background
from rae_dit.checkpoint.manager import Checkpoints
from rae_dit.config import Config, ConfigError, to_dict
from rae_dit.multihost import Preemption, closing
from rae_dit.provenance import Provenance
from rae_dit.setup import models
from rae_dit.setup.run import open_run
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import check_writable, write_json
from rae_dit.training.ahead import compile_step
from rae_dit.training.goodput import Goodput
from rae_dit.training.hooks import telemetry_hook, validation_hook
from rae_dit.training.loop import run_steps
from rae_dit.training.metrics import MetricsWriter
from rae_dit.training.run import describe, restore_or_create
from rae_dit.training.sharding import make_mesh
from rae_dit.training.weights_and_biases import WeightsAndBiases, check_installed
from rae_dit.workdir import LISTINGS, has_checkpoint, lock_for_all, parse_config

log = logging.getLogger(__name__)


def train(config: Config, workdir: Path, *, started: float | None = None) -> Config:
    """Trains `config.objective` to `optim.max_steps`, resuming from the latest checkpoint.

    Leaves in `workdir`: config.json, checkpoints/, metrics.jsonl, goodput.json and TensorBoard
    events. Asked to stop (multihost/preemption.py), it saves the step it has reached and returns.

    Args:
        config: of the run.
        workdir: of the run; made if needed.
        started: `time.monotonic()` when the program started, for its account of time; None: now.

    Returns:
        The config of the run, as its config.json has it: with all lengths in steps.

    Raises:
        ConfigError: something that the config names is missing, or another run holds `workdir`.
        DivergedError: `optim.max_consecutive_bad_steps` in a row were not finite, or the loss rose
            out of bounds (`optim.spike_factor`) more than `optim.max_rollbacks` times.
        ChangedDataError: the workdir's run was started on other data.
    """
    is_main = jax.process_index() == 0
    check_installed(config.metrics.wandb_project)
    with (
        contextlib.ExitStack() as unwinding,
        Preemption() as preemption,  # first: SIGTERM is heard while the lock is waited for, too
        lock_for_all(workdir) as check_lock,
        jax.default_matmul_precision(models.matmul_precision(config)),
        Goodput(
            workdir / "goodput.json" if is_main else None, started=started, check_lock=check_lock
        ) as goodput,
        Checkpoints(
            workdir / "checkpoints",
            save_every=config.checkpoint.save_every,
            keep_last=config.checkpoint.keep_last,
            keep_every=config.checkpoint.keep_every,
        ) as checkpoints,
    ):
        run = open_run(config, make_mesh(config.sharding.fsdp), workdir / LISTINGS)
        compiling: Future[None] | None = None
        if (checkpoints.latest_step() or 0) < run.config.optim.max_steps:
            precision = models.matmul_precision(config)
            compiling = in_background(functools.partial(compile_step, run, precision), "compile")
        hooks = [
            telemetry_hook(run),
            validation_hook(run, preemption.still_alive),
            *run.task.make_image_hooks(
                run.mesh, run.frozen, run.validation, workdir, preemption.still_alive
            ),
        ]
        log.info(describe(run))
        with goodput.spending("restore"):
            run, state, history = restore_or_create(run, checkpoints)
        goodput.begin(int(state.step), int(state.bad_steps))
        values, project = to_dict(run.config), config.metrics.wandb_project
        others = [WeightsAndBiases(project, workdir, values)] if project and is_main else []
        with (
            MetricsWriter(workdir, is_main=is_main, others=others, check_lock=check_lock) as writer,
            contextlib.ExitStack() as steps,
        ):
            # From here to the end of all blocks: process 0's metrics may need longer than others'.
            steps.callback(unwinding.enter_context, closing())
            writer.truncate(int(state.step))
            if is_main:
                log_changed_settings(workdir, run.config)
                write_json(workdir / "config.json", values)

            def before_save() -> None:
                if not is_main:  # whose lease shows that it can write
                    # Orbax takes ten minutes to find that one of several processes cannot.
                    check_writable(workdir)
                writer.upload()  # makes sure of the lock before

            run_steps(
                run,
                state,
                history,
                checkpoints=checkpoints,
                preemption=preemption,
                hooks=hooks,
                writer=writer,
                goodput=goodput,
                workdir=workdir,
                wait_for_program=compiling.result if compiling else lambda: None,
                before_save=before_save,
            )
        goodput.switch("save")  # leaving `checkpoints` waits for the last write
    return run.config


def log_changed_settings(workdir: Path, config: Config) -> None:
    """Logs the settings in which a run that is continued differs from its last start.

    A config file may have changed since, and with it what is trained. Process 0 alone calls this,
    so nothing in it may ask the others.
    """
    path = workdir / "config.json"
    if not has_checkpoint(workdir):
        return
    try:
        before = to_dict(parse_config(path, path.read_text()))
    except (OSError, StorageError, ConfigError) as error:
        log.warning("the settings of the run's last start are not known: %s", error)
        return
    changes = Provenance.of(to_dict(config)).changes(before)
    if changes:
        lines = [f"{name} {old!r} -> {new!r}" for name, old, new in changes]
        log.warning("the run continues with other settings: %s", "; ".join(lines))
