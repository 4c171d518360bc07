"""What a training run is made of: what stays the same from its first step to its last."""

import dataclasses
from typing import NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import refusal
from rae_dit.data import pipeline
from rae_dit.data.batches import Batches
from rae_dit.data.sources import Source
from rae_dit.evaluation.feature_extractors import FeatureExtractor
from rae_dit.flops import model_flops, peak_flops
from rae_dit.models.attention import choose_attention
from rae_dit.objectives.base import Tree
from rae_dit.sampling.generate import Generator
from rae_dit.setup import data, models, weights
from rae_dit.setup.evaluation import (
    check_evaluation,
    during_training,
    make_feature_extractor,
)
from rae_dit.training.history import History
from rae_dit.training.program import Program, make_program
from rae_dit.training.sharding import replicated
from rae_dit.training.state import TrainState


class Run(NamedTuple):
    """What the steps of a run share.

    Attributes:
        config: with all lengths in steps.
        mesh: over all devices of all processes.
        program: the compiled functions.
        source: training records.
        validation: held-out records, or None.
        frozen: networks that are used and not trained.
        decoder: parameters of the frozen decoder where a stage-2 run makes images, else {}.
        guide: the weaker model of AutoGuidance where it makes images with one, else None.
        judge: of these images, where the run is evaluated; else None.
    """

    config: Config
    mesh: Mesh
    program: Program
    source: Source
    validation: Source | None
    frozen: Tree
    decoder: Tree
    guide: weights.Model | None
    judge: FeatureExtractor | None


def open_run(config: Config, mesh: Mesh) -> Run:
    """Opens the data, loads the frozen networks and builds the functions; compiles nothing.

    Raises:
        ConfigError: something that was asked for needs what is not there.
    """
    source = data.open_source(config, "train")
    if config.data.batch_size > len(source):
        expected = f"at most {len(source)}, as many as there are images to train on"
        raise refusal("data.batch_size", config.data.batch_size, expected)
    validation = data.open_source(config, "validation")
    steps_per_epoch = len(source) // config.data.batch_size
    config = dataclasses.replace(
        config,
        optim=config.optim.in_steps(steps_per_epoch),
        perceptual=config.perceptual.in_steps(steps_per_epoch),
        gan=config.gan.in_steps(steps_per_epoch),
    )
    check_held_out(config, validation)
    judge = None
    if config.metrics.evaluate_every is not None:
        judge = make_feature_extractor(check_evaluation(during_training(config)))
    makes_images = config.objective == "flow_matching" and not (
        config.metrics.sample_every is None and config.metrics.evaluate_every is None
    )
    guided = makes_images and config.sample.guide_checkpoint
    return Run(
        config,
        mesh,
        make_program(config, mesh),
        source,
        validation,
        frozen=weights.place_frozen(config, mesh),
        decoder=jax.device_put(weights.place_decoder(config, mesh), replicated(mesh))
        if makes_images
        else {},
        guide=weights.place_guide(config, mesh) if guided else None,
        judge=judge,
    )


def check_held_out(config: Config, validation: Source | None) -> None:
    """Checks that there are held-out images where they are asked for.

    Raises:
        ConfigError: there are none.
    """
    if validation is not None:
        return
    wanted = "data.validation_path: got '', expected held-out images because of"
    if config.objective == "reconstruction" and config.metrics.sample_every is not None:
        raise ConfigError(f"{wanted} metrics.sample_every = {config.metrics.sample_every}")
    if config.checkpoint.best_metric.startswith(("val/", "val_ema/")):
        raise ConfigError(f"{wanted} checkpoint.best_metric = {config.checkpoint.best_metric!r}")


def describe(run: Run) -> str:
    """What a run is computed with, for its log; what "auto" came to, where a DiT^DH is trained."""
    config, mesh = run.config, run.mesh
    attention: str = config.compute.attention
    if attention == "auto" and config.objective == "flow_matching":
        tokens = (models.latent_grid(config) // config.ddt.patch_size) ** 2
        attention = choose_attention(
            mesh.devices.flat[0].platform,
            mesh.size,
            half=config.precision == "bf16",
            batch=config.data.batch_size // config.optim.accumulate_steps,
            tokens=tokens,
        )
        attention += f" over {tokens} tokens"
    return (
        f"{mesh.size} x {mesh.devices.flat[0].device_kind}, fsdp {config.sharding.fsdp}, "
        f"{config.precision}, attention {attention}, "
        f"layers {'scanned' if config.compute.scan_layers else 'unrolled'}, "
        f"remat {config.compute.remat}"
    )


def position(run: Run, step: int) -> dict[str, int | str]:
    """Where the data stand after `step` steps, as saved beside the state."""
    config = run.config
    return pipeline.position(
        run.source, step=step, seed=config.seed, batch_size=config.data.batch_size
    )


def train_stream(run: Run, step: int, history: History) -> Batches:
    """The batches after `step` steps, past those that were skipped; this process's share."""
    config = run.config
    return pipeline.train_batches(
        run.source,
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=step + history.skipped_batches,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config.data.num_workers,
        flip=config.data.flip,
    )


def peak_images(run: Run) -> float | None:
    """Images a second if every device reached its peak FLOP/s; None where that is not known."""
    peak = peak_flops(run.mesh.devices.flat[0].device_kind, run.config.precision)
    return None if peak is None else peak * run.mesh.size / model_flops(run.config).train_step


def ema_generator(run: Run, state: TrainState) -> Generator:
    """Makes images with the EMA of a stage-2 run; its arrays are gone after the next step."""
    ddt = nnx.graphdef(models.abstract(models.make_ddt, run.config))
    rae = models.rae_graph(run.config, decoder=True)
    return Generator(
        nnx.merge(ddt, state.ema),
        nnx.merge(rae, run.frozen | {"decoder": run.decoder}),
        run.mesh,
        None if run.guide is None else nnx.merge(*run.guide),
    )
