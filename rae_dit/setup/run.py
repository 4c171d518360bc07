"""Config -> a training run."""

from pathlib import Path

from jax.sharding import Mesh

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.data.pipeline import batch_bytes
from rae_dit.data.sources import Source
from rae_dit.data.workers import check_shared_memory
from rae_dit.setup import data
from rae_dit.setup.evaluation import check_evaluation, during_training
from rae_dit.setup.latents import check_latents
from rae_dit.setup.objectives import make_task
from rae_dit.training.program import Program, build_program
from rae_dit.training.run import Run
from rae_dit.training.sharding import local_rows


def open_run(config: Config, mesh: Mesh, listings: Path | None = None) -> Run:
    """Opens the data, loads the frozen networks and builds the functions; compiles nothing.

    Args:
        config: of the run.
        mesh: all of its devices.
        listings: directory where listings of the data are kept; None for none.

    Raises:
        ConfigError: the data do not suffice for a batch, or /dev/shm for the workers, held-out
            images are missing or have other classes, or the evaluation during training cannot be
            made.
    """
    source = data.open_examples(config, "train", listings)
    if config.data.batch_size > len(source):
        expected = f"at most {len(source)}, as many as there are images to train on"
        raise invalid_value("data.batch_size", config.data.batch_size, expected)
    check_shared_memory(
        config.data.num_workers,
        batch_bytes(source, len(local_rows(mesh, config.data.batch_size))),
    )
    validation = data.open_examples(config, "validation", listings)
    data.check_same_classes(config, source, validation)
    check_latents(config, source, validation, mesh)
    config = config.in_steps(len(source))
    check_held_out(config, validation)
    if config.metrics.evaluate_every is not None:
        check_evaluation(during_training(config))
    task = make_task(config)
    return Run(
        config,
        mesh,
        task,
        build_program(task, mesh, seed=config.seed),
        source,
        validation,
        frozen=task.load_frozen(mesh),
    )


def make_program(config: Config, mesh: Mesh) -> Program:
    """Builds the functions of a config's run; loads and compiles nothing."""
    return build_program(make_task(config), mesh, seed=config.seed)


def check_held_out(config: Config, validation: Source | None) -> None:
    """Checks that there are held-out images where they are needed.

    Raises:
        ConfigError: there are none.
    """
    if validation is not None:
        return
    wanted = "data.validation_path: got ''; expected held-out images because of"
    if config.trained_network == "decoder" and config.metrics.sample_every is not None:
        raise ConfigError(f"{wanted} metrics.sample_every = {config.metrics.sample_every}")
    if config.checkpoint.best_metric.startswith(("val/", "val_ema/")):
        raise ConfigError(f"{wanted} checkpoint.best_metric = {config.checkpoint.best_metric!r}")
