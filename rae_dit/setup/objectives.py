"""Config -> task: the only match on the objective's name besides config/."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from rae_dit.config import Config
from rae_dit.data.sources import Source
from rae_dit.flops import (
    Matmul,
    Work,
    ddt_matmuls,
    ddt_tokens,
    decoder_matmuls,
    encoder_matmuls,
    mean_flow_matmuls,
    trajectory_matmuls,
)
from rae_dit.objectives.base import Objective, Tree
from rae_dit.objectives.classification import classification, probing
from rae_dit.objectives.flow_matching import flow_matching, telemetry
from rae_dit.objectives.reconstruction import reconstruction
from rae_dit.objectives.teacher import Teacher
from rae_dit.setup import few_steps, gan, hooks, models, networks, stage1, teacher, weights
from rae_dit.setup.endpoint import endpoint_hook
from rae_dit.setup.optim import count_matrices, make_optimizer, make_schedule
from rae_dit.training.hook import Hook
from rae_dit.training.muon_account import muon_matmuls, update_rms
from rae_dit.training.step import train_step
from rae_dit.training.task import Task


def make_task(config: Config) -> Task:
    """Makes the task of the config's objective; loads and compiles nothing.

    Args:
        config: all lengths in steps.
    """
    match config.objective:
        case "flow_matching":
            return flow_matching_task(config)
        case "trajectory":
            return few_step_task(
                config,
                few_steps.trajectory_objectives,
                trajectory_matmuls(config),
                has_teacher=True,
            )
        case "mean_flow":
            distils = config.few_step.velocity == "teacher"
            beside = mean_flow_matmuls(config, has_teacher=distils)
            return few_step_task(
                config, few_steps.mean_flow_objectives, beside, has_teacher=distils
            )
        case "reconstruction":
            return reconstruction_task(config)
        case "classification" if config.probe.freeze_encoder:
            return probing_task(config)
        case "classification":
            return classification_task(config)


def flow_matching_task(config: Config) -> Task:
    """Makes the task of stage 2: a DDT on the latents of a frozen RAE."""
    ddt = models.abstract(models.make_ddt, config)
    graph = nnx.graphdef(ddt)
    cached = config.data.source == "latents"
    make_objective = functools.partial(
        flow_matching,
        graph,
        None if cached else models.rae_graph(config, decoder=False),
        null_label=ddt.null_label,
        time_distribution=config.flow.time_distribution,
        shift=models.latent_shift(config),
        prediction=config.flow.prediction,
        base_weight=config.flow.base_weight if config.ddt.base_depth else None,
    )
    validation = make_objective(class_dropout=0.0)
    observe = functools.partial(telemetry, objective=validation, ddt_graph=graph)
    objective = make_objective(class_dropout=config.ddt.class_dropout)
    work = Work(frozen=[] if cached else encoder_matmuls(config), trained=ddt_matmuls(config))
    return Task(
        **trained(config, models.make_ddt, objective, work),
        validation=validation,
        load_frozen=lambda mesh: (
            {} if cached else weights.place_rae(config, mesh, decoder=False).parameters
        ),
        load_initial=lambda mesh: networks.initial_ddt(config, mesh),
        telemetry=observe if config.metrics.telemetry else None,
        attention_shape=(ddt_tokens(config), config.ddt.head_width),
        make_image_hooks=functools.partial(hooks.sample_hooks, config),
    )


def few_step_task(
    config: Config,
    objectives_of: Callable[[Config, Teacher | None], few_steps.MakeObjective],
    beside: list[Matmul],
    *,
    has_teacher: bool,
) -> Task:
    """Makes the task of a DDT with two times: average velocities of a teacher, or of data.

    Args:
        config: of the run.
        objectives_of: makes its objectives from its teacher.
        beside: products of a step for one row, beside those of the trained network.
        has_teacher: False for fine-tuning on data.
    """
    learns_from = teacher.teacher_of(config) if has_teacher else None
    make_objective = objectives_of(config, learns_from)
    graph = nnx.graphdef(models.abstract(models.make_ddt, config))
    validation = make_objective(class_dropout=0.0)
    observe = functools.partial(
        telemetry, objective=validation, ddt_graph=graph, arguments=few_steps.arguments
    )
    objective = make_objective(class_dropout=config.ddt.class_dropout, training=True)
    work = Work(frozen=beside, trained=ddt_matmuls(config))
    fields = trained(config, models.make_ddt, objective, work)
    fields["step"] = few_steps.with_step_number(fields["step"])

    def image_hooks(
        mesh: Mesh,
        frozen: Tree,
        validation: Source | None,
        workdir: Path,
        after_batch: Callable[[], None],
    ) -> Sequence[Hook]:
        images = hooks.sample_hooks(config, mesh, frozen["rae"], validation, workdir, after_batch)
        if learns_from is None:
            return images
        return [endpoint_hook(config, mesh, frozen, learns_from), *images]

    return Task(
        **fields,
        validation=validation,
        load_frozen=lambda mesh: teacher.place_frozen(config, mesh, has_teacher=has_teacher),
        load_initial=lambda mesh: teacher.initial_student(config, mesh, has_teacher=has_teacher),
        telemetry=observe if config.metrics.telemetry else None,
        attention_shape=(ddt_tokens(config), config.ddt.head_width),
        make_image_hooks=image_hooks,
    )


def reconstruction_task(config: Config) -> Task:
    """Makes the task of stage 1: a decoder, with LPIPS and a discriminator if weighted."""
    has_lpips, has_discriminator = config.perceptual.weight > 0, config.gan.weight > 0
    make_objective = functools.partial(
        reconstruction,
        models.rae_graph(config, decoder=False),
        models.rae_graph(config, decoder=True),
        nnx.graphdef(models.abstract(models.make_lpips, config)) if has_lpips else None,
        lpips_weight=config.perceptual.weight,
    )
    objective = make_objective(noise_tau=config.decoder.noise_tau)
    work = Work(frozen=encoder_matmuls(config), trained=decoder_matmuls(config))
    fields = trained(config, models.make_decoder, objective, work)
    if has_lpips or has_discriminator:
        fields["step"] = gan.make_step(config, fields["objective"], fields["optimizer"])
    if has_discriminator:
        fields["create_discriminator"] = functools.partial(gan.initial_discriminator, config)
    return Task(
        **fields,
        validation=make_objective(noise_tau=0.0),
        load_frozen=lambda mesh: stage1.place_stage1(config, mesh),
        load_initial=lambda mesh: weights.initial_decoder(config, mesh),
        make_image_hooks=functools.partial(hooks.reconstruction_hooks, config),
    )


def classification_task(config: Config) -> Task:
    """Makes the task of an encoder and a linear layer that are trained together."""
    graph = nnx.graphdef(models.abstract(models.make_classifier, config))
    objective = classification(graph)
    work = Work(frozen=[], trained=[*encoder_matmuls(config), head_matmul(config)])
    return Task(
        **trained(config, models.make_classifier, objective, work),
        validation=objective,
        load_frozen=lambda mesh: {},
    )


def probing_task(config: Config) -> Task:
    """Makes the task of a linear layer on a frozen encoder."""
    graph = nnx.graphdef(models.abstract(models.make_head, config))
    objective = probing(models.rae_graph(config, decoder=False), graph)
    work = Work(frozen=encoder_matmuls(config), trained=[head_matmul(config)])
    return Task(
        **trained(config, models.make_head, objective, work),
        validation=objective,
        load_frozen=lambda mesh: weights.place_rae(config, mesh, decoder=False).parameters,
    )


def trained(
    config: Config, make: Callable[[Config, nnx.Rngs], nnx.Module], objective: Objective, work: Work
) -> dict[str, Any]:
    """Makes the fields of a `Task` that follow from what is trained, with the usual step."""
    module = models.abstract(make, config)
    optimizer = make_optimizer(config, module)
    watched: dict[str, Any] = {}
    if config.optim.name == "muon":
        matrices = count_matrices(module)
        work = work._replace(optimizer=muon_matmuls(nnx.to_pure_dict(nnx.state(module)), matrices))
        if config.metrics.telemetry:
            watched["observe"] = functools.partial(update_rms, matrices=matrices)
    return {
        "objective": objective,
        "create": functools.partial(make, config),
        "module": module,
        "optimizer": optimizer,
        "schedule": make_schedule(config),
        "work": work,
        "step": functools.partial(
            train_step,
            objective=objective,
            optimizer=optimizer,
            ema_decay=config.ema.decay,
            accumulate_steps=config.optim.accumulate_steps,
            **watched,
        ),
    }


def head_matmul(config: Config) -> Matmul:
    """Counts the linear layer, which reads the mean of an image's tokens."""
    return Matmul(1, config.encoder.hidden_size, config.data.num_classes)
