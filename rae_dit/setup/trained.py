"""Models of this project's runs: the run's config makes the networks, its EMA fills them."""

import dataclasses
from pathlib import Path

import jax
from flax import nnx

from rae_dit.config import Config
from rae_dit.models.ddt import DDT
from rae_dit.models.decoder import Decoder
from rae_dit.models.rae import RAE
from rae_dit.setup import models
from rae_dit.setup.weights import place_decoder, place_rae, restore_ddt
from rae_dit.training.sharding import make_mesh


def trained_ddt(config: Config, source: Path) -> DDT:
    """Loads the DiT^DH of a stage-2 run.

    Args:
        config: of the run.
        source: workdir, checkpoints or step of the run.

    Raises:
        CheckpointError: the run has no sound checkpoint.
    """
    return nnx.merge(*restore_ddt(config, source, one_device()))


def trained_decoder(config: Config, source: Path) -> Decoder:
    """Loads the decoder of a stage-1 run; arguments and errors are those of `trained_ddt`."""
    graph = nnx.graphdef(models.abstract(models.make_decoder, config))
    return nnx.merge(graph, place_decoder(with_own_network(config, source), one_device()))


def rae_of_run(config: Config, source: Path) -> RAE:
    """Loads the autoencoder that a run trains or uses; arguments are those of `trained_ddt`."""
    config = with_own_network(config, source)
    decodes = bool(config.decoder.pretrained or config.decoder.checkpoint)
    return nnx.merge(*place_rae(config, one_device(), decoder=decodes))


def with_own_network(config: Config, source: Path) -> Config:
    """Returns the config with the encoder or decoder that the run trains itself."""
    section = config.trained_network
    if section not in ("encoder", "decoder"):
        return config
    own = dataclasses.replace(getattr(config, section), pretrained="", checkpoint=str(source))
    return dataclasses.replace(config, **{section: own})


def one_device() -> jax.sharding.Mesh:
    """Returns a mesh of the first local device, which holds a user's models."""
    return make_mesh(1, jax.local_devices()[:1])
