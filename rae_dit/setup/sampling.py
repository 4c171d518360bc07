"""Sampling from a config: its models and the settings of its sampler."""

from pathlib import Path

from flax import nnx

from rae_dit.config import Config
from rae_dit.diffusion.sampler import SamplerOptions
from rae_dit.sampling.generate import Generator
from rae_dit.setup import models, weights
from rae_dit.training.sharding import make_mesh


def load_generator(config: Config, workdir: Path) -> Generator:
    """Loads the newest EMA of a stage-2 run, the RAE that its config names, and the guide if any.

    Raises:
        ConfigError: the guide is for other latents or classes, or the config says otherwise.
        CheckpointError: there is no sound checkpoint, or it has no EMA.
        WeightsError: a third-party file cannot be used.
    """
    mesh = make_mesh(config.sharding.fsdp)
    guide = weights.place_guide(config, mesh) if config.sample.guide_checkpoint else None
    ddt = weights.place_ddt(config, workdir, mesh)
    rae = weights.place_rae(config, mesh, decoder=True)
    merged = None if guide is None else nnx.merge(*guide)
    return Generator(nnx.merge(*ddt), nnx.merge(*rae), mesh, merged)


def sampler_options(config: Config) -> SamplerOptions:
    """Returns the sampler settings of `config.sample`, with the time shift of `config.flow`."""
    sample = config.sample
    return SamplerOptions(
        method=sample.method,
        steps=sample.num_steps,
        grid=sample.grid,
        shift=models.latent_shift(config),
        guidance=sample.guidance,
        interval=sample.cfg_interval,
        rtol=sample.rtol,
        atol=sample.atol,
        diffusion_norm=sample.diffusion_norm,
        last_step=sample.last_step,
        last_step_size=sample.last_step_size,
    )
