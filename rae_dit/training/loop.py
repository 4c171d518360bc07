"""The training loop: the one room with a clock and side effects, and no mathematics.

Rerunning the same command continues from the newest checkpoint in the workdir. What a step computes
depends on the state, the frozen networks and the batch alone; the batch depends on (seed, step)
alone; so a run that was stopped ends with the same bits as one that was not.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from rae_dit import build, loading, records
from rae_dit.config import Config, to_dict
from rae_dit.data import pipeline
from rae_dit.data.sources import Source
from rae_dit.files import write_json
from rae_dit.training.checkpoint import Checkpoints, restore_state
from rae_dit.training.metrics import MetricsWriter, Progress
from rae_dit.training.objective import Tree
from rae_dit.training.program import Program, make_program
from rae_dit.training.sharding import make_mesh, place_batch
from rae_dit.training.state import TrainState

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Config
    mesh: Mesh
    program: Program
    source: Source
    validation: Source | None
    frozen: Tree


def train(config: Config, workdir: Path) -> None:
    """Trains what `config.objective` says until `optim.max_steps`, from wherever it stands.

    Leaves in `workdir`: config.json, checkpoints/, metrics.jsonl and TensorBoard events. Asked to
    stop (distributed.py), it saves the step it has reached and returns.

    Raises:
        RuntimeError: `optim.max_consecutive_bad_steps` in a row were not finite.
    """
    is_main = jax.process_index() == 0
    mesh = make_mesh(config.sharding.fsdp)
    with (
        jax.default_matmul_precision(build.matmul_precision(config)),
        Checkpoints(
            workdir / "checkpoints",
            save_every=config.checkpoint.save_every,
            keep_last=config.checkpoint.keep_last,
            keep_every=config.checkpoint.keep_every,
        ) as checkpoints,
    ):
        run = Run(
            config,
            mesh,
            make_program(config, mesh),
            source=records.open_source(config, "train"),
            validation=records.open_source(config, "validation"),
            frozen=loading.load_frozen(config, mesh),
        )
        state = restore_or_create(run, checkpoints)
        with MetricsWriter(workdir, is_main=is_main) as writer:
            writer.truncate(int(state.step))
            if is_main:
                write_json(workdir / "config.json", to_dict(config))
            run_steps(run, state, checkpoints, writer)


def restore_or_create(run: Run, checkpoints: Checkpoints) -> TrainState:
    """The newest state of the workdir, else that at `checkpoint.restore_from`, else a new one.

    The workdir comes first, so that a run started from elsewhere and then killed continues.
    """
    elsewhere = run.config.checkpoint.restore_from
    restored = checkpoints.restore(run.program.abstract)
    if restored is None and elsewhere:
        restored = restore_state(elsewhere, run.program.abstract)
    if restored is None:
        return loading.start_from_pretrained(run.config, run.program.create(), run.mesh)
    state, saved = restored
    pipeline.check_position(saved, position(run, int(state.step)))
    log.info("continuing from step %d", int(state.step))
    return state


def position(run: Run, step: int) -> dict[str, int | str]:
    """Where the data stand after `step` steps, as saved beside the state."""
    config = run.config
    return pipeline.position(
        run.source, step=step, seed=config.seed, batch_size=config.data.batch_size
    )


def run_steps(
    run: Run, state: TrainState, checkpoints: Checkpoints, writer: MetricsWriter
) -> TrainState:
    """Takes the steps that are left, unless asked to stop; logs, validates, saves on the way."""
    config = run.config
    first, last = int(state.step), config.optim.max_steps
    if stopped_early(checkpoints, first):
        log.info("asked to stop before the first step; the same command continues")
        return state
    progress = Progress(first_step=first, max_steps=last, batch_size=config.data.batch_size)
    batches = pipeline.train_batches(
        run.source,
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config.data.num_workers,
        flip=config.data.flip,
    )
    with batches:
        for step in range(first + 1, last + 1):
            batch = place_batch(next(batches), run.mesh)
            state, metrics = run.program.step(state, run.frozen, batch)
            if step == first + 1:
                jax.block_until_ready(metrics)
                progress.compiled()
            values: dict[str, float] = {}
            if step % config.metrics.log_every == 0 or step == last:
                values |= {f"train/{name}": float(value) for name, value in metrics.items()}
                values["train/replaced_images"] = batches.replaced
                values |= progress.rates(step)
            if step % config.metrics.validate_every == 0 or step == last:
                values |= validate(run, state)
            if values:
                writer.write(step, values)
                log.info(progress.line(step, values))
            if step % config.metrics.log_every == 0 or step == last:
                check_good(run, state)
            checkpoints.save(step, state, position(run, step), force=step == last)
            if checkpoints.reached_preemption(step) and step < last:
                saved = checkpoints.latest_step()  # waits for the write
                log.info(
                    "asked to stop: saved step %d of %d; the same command continues", saved, last
                )
                return state
    log.info("done: step %d of %d", last, last)
    return state


def stopped_early(checkpoints: Checkpoints, first: int) -> bool:
    """Whether this run was asked to stop while it loaded; from here on no notice is missed.

    A notice is filed under the number asked about last, plus one. One that came before anybody
    asked is therefore found under 1, and one that comes while the first step compiles would be too,
    where a continued run never looks: asking about `first` files it under `first + 1`.
    """
    return checkpoints.reached_preemption(1) or checkpoints.reached_preemption(first)


def check_good(run: Run, state: TrainState) -> None:
    """Ends a run that learns nothing any more; the parameters are those of its last good step."""
    step, last_good = int(state.step), int(state.last_good_step)
    limit = run.config.optim.max_consecutive_bad_steps
    if step - last_good >= limit:
        raise RuntimeError(
            f"loss or gradient was not finite at every step from {last_good + 1} to {step}; "
            f"optim.max_consecutive_bad_steps allows fewer than {limit} in a row. Continue with a "
            "lower optim.learning_rate or precision='fp32', and look at the images of these steps"
        )


def validate(run: Run, state: TrainState) -> dict[str, float]:
    """Mean losses on held-out images: "val/..." of the parameters, "val_ema/..." of their EMA.

    The same images, times and noise are used at every call, so that curves are comparable.
    Without held-out images there is nothing to say.
    """
    config = run.config
    values: dict[str, float] = {}
    if run.validation is None:
        return values
    for prefix, params in (("val", state.params), ("val_ema", state.ema)):
        total: dict[str, float] = {}
        batches = pipeline.ordered_batches(
            run.validation,
            batch_size=config.data.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            limit=config.metrics.validate_batches * config.data.batch_size,
        )
        with batches:
            for number, batch in enumerate(batches):
                key = jax.random.fold_in(jax.random.key(config.seed), number)
                placed = place_batch(batch, run.mesh)
                sums = run.program.validate(params, run.frozen, placed, key)
                for name, value in sums.items():
                    total[name] = total.get(name, 0.0) + float(value)
        weight = total.pop("weight")
        values |= {f"{prefix}/{name}": value / weight for name, value in total.items()}
    return values
