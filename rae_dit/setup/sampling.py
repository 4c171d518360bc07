"""Sampling from a config: its models, the settings of its sampler, provenance of its images."""

import dataclasses
from pathlib import Path

from flax import nnx

from rae_dit.checkpoint.integrity import tree_checksum
from rae_dit.config import Config
from rae_dit.config.modes import SampleConfig
from rae_dit.diffusion.sampler import SamplerOptions
from rae_dit.provenance import Provenance
from rae_dit.sampling.generate import GenerationSettings, Generator
from rae_dit.sampling.labels import chosen_classes
from rae_dit.sampling.mean_flow import METHOD
from rae_dit.setup import models, weights
from rae_dit.setup.networks import place_guide
from rae_dit.training.sharding import check_fsdp, make_mesh

FREE = ("num_samples", "output_dir", "labels", "class_list", "class_names", "guide_checkpoint")


def load_generator(config: Config, workdir: Path, step: int | None = None) -> Generator:
    """Loads an EMA of a stage-2 run, the RAE that its config names, and the guide if any.

    Args:
        config: of the run.
        workdir: of the run.
        step: of the EMA, from `newest_step`, so that a report can name it; None takes the newest.

    Raises:
        ConfigError: the guide is for other latents or classes, the config says otherwise, or
            `sharding.fsdp` would leave most parameters whole on every device.
        CheckpointError: there is no sound checkpoint, or it has no EMA.
        WeightsError: a third-party file cannot be used.
    """
    mesh = make_mesh(config.sharding.fsdp)
    check_fsdp(models.abstract(models.make_ddt, config), mesh)
    guide = place_guide(config, mesh) if config.sample.guide_checkpoint else None
    ddt = weights.place_ddt(config, workdir, mesh, step)
    rae = weights.place_rae(config, mesh, decoder=True)
    merged = None if guide is None else nnx.merge(*guide)
    return Generator(nnx.merge(*ddt), nnx.merge(*rae), mesh, merged)


def sampler_options(config: Config) -> SamplerOptions:
    """Returns the sampler settings of `config.sample`, with the time shift of `config.flow`."""
    return options_of(config.sample, models.latent_shift(config))


def options_of(sample: SampleConfig, shift: float) -> SamplerOptions:
    """Returns the settings of a section `sample` with a time shift."""
    return SamplerOptions(
        method=sample.method,
        steps=sample.num_steps,
        grid=sample.grid,
        shift=1.0 if sample.method == METHOD else shift,
        guidance=sample.guidance,
        interval=sample.cfg_interval,
        internal_scale=sample.internal_scale,
        internal_interval=sample.internal_interval,
        internal_null_scale=sample.internal_null_scale,
        rtol=sample.rtol,
        atol=sample.atol,
        diffusion_norm=sample.diffusion_norm,
        last_step=sample.last_step,
        last_step_size=sample.last_step_size,
        precision=sample.precision,
    )


def generation_settings(config: Config) -> GenerationSettings:
    """Returns how `config.sample` makes images: sampler, batch size and seed."""
    sample = config.sample
    return GenerationSettings(sampler_options(config), sample.batch_size, sample.seed)


def sample_provenance(config: Config, step: int | None) -> Provenance:
    """Returns what images depend on besides the weights, and how many there are.

    Args:
        config: of the run.
        step: that is restored; None for `ddt.pretrained`.
    """
    free = list(FREE)
    if config.sample.method != "dopri5":  # its steps depend on the whole batch
        free.append("batch_size")
    values = dataclasses.asdict(config.sample)
    settings = {name: value for name, value in values.items() if name not in free}
    return Provenance.of(
        {
            "checkpoint": step or config.ddt.pretrained,
            "num_samples": config.sample.num_samples,
            "classes": list(chosen_classes(config)),
            "shift": sampler_options(config).shift,
            **network_settings(config),
            **settings,
            "precision": config.precision,
            "sample.precision": config.sample.precision,
        }
    )


def network_settings(config: Config) -> dict[str, object]:
    """Returns what networks compute that neither their sizes nor their numbers tell."""
    return {
        "flow.prediction": config.flow.prediction,
        "encoder.layers": config.encoder.layers,
        "encoder.add_mean": config.encoder.add_mean,
        "decoder.pixels": config.decoder.pixels,
    }


def weights_provenance(generator: Generator) -> dict[str, int]:
    """Returns a checksum of each model's parameters, independent of the file they came from."""
    found = {"ddt": generator.ddt, "rae": generator.rae, "guide": generator.guide}
    return {
        f"weights of {name}": tree_checksum(nnx.to_pure_dict(nnx.state(model)))
        for name, model in found.items()
        if model is not None
    }
