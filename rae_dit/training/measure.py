"""What is measured of a run besides its steps: held-out losses, sizes in the model, its samples."""

from pathlib import Path

from rae_dit.objectives.base import Tree
from rae_dit.setup.evaluation import during_training, score
from rae_dit.training.run import Run, ema_generator
from rae_dit.training.state import TrainState
from rae_dit.training.validation import held_out_means


def observe(run: Run, state: TrainState, batch: Tree) -> dict[str, float]:
    """What happens inside the model on a batch, if anybody looks (telemetry.py)."""
    if run.program.telemetry is None:
        return {}
    values = run.program.telemetry(state.params, run.frozen, batch, state.key)
    return {name: float(value) for name, value in values.items()}


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
        means, _ = held_out_means(
            run.program.validate,
            params,
            run.frozen,
            run.validation,
            run.mesh,
            batch_size=config.data.batch_size,
            seed=config.seed,
            limit=config.metrics.validate_batches * config.data.batch_size,
        )
        values |= {f"{prefix}/{name}": value for name, value in means.items()}
    return values


def evaluate(run: Run, state: TrainState, workdir: Path) -> dict[str, float]:
    """What --mode=evaluate would say of the EMA: "eval/fid" and the like."""
    assert run.judge is not None  # `open_run` has seen to it
    config = during_training(run.config)
    values = score(ema_generator(run, state), run.judge, config, workdir)
    return {f"eval/{name}": value for name, value in values.items()}
