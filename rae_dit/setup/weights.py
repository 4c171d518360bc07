"""Weights of a config's networks, placed on the devices of a mesh.

What training and sampling pass around is a `Model`: the graph of an NNX module and a plain dict of
arrays.
"""

import dataclasses
import functools
import logging
import operator
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from rae_dit.checkpoint.manager import restore_ema
from rae_dit.config import Config
from rae_dit.config.check import invalid_value
from rae_dit.models.rae import latent_scale
from rae_dit.multihost import decide, place
from rae_dit.objectives.base import Tree
from rae_dit.setup import pretrained
from rae_dit.setup.models import (
    abstract,
    encoder_architecture,
    latent_grid,
    make_classifier,
    make_ddt,
    make_decoder,
    make_encoder,
    rae_graph,
)
from rae_dit.storage.places import place as storage_place
from rae_dit.storage.reading import local_copy
from rae_dit.training.sharding import parameter_shardings, replicated
from rae_dit.weights.statistics import check_encoder, read_statistics
from rae_dit.workdir import find_run, has_checkpoint, read_config

log = logging.getLogger(__name__)


class Model(NamedTuple):
    """An NNX module taken apart: `nnx.merge(graph, parameters)` puts it together."""

    graph: nnx.GraphDef
    parameters: Tree


def shapes(module: nnx.Module, mesh: Mesh) -> Tree:
    """Returns an abstract module's parameters as `ShapeDtypeStruct`s with their shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nnx.to_pure_dict(nnx.state(module)),
        parameter_shardings(module, mesh),
    )


def initialize(make: Callable[[Config, nnx.Rngs], nnx.Module], config: Config, mesh: Mesh) -> Model:
    """Initializes parameters in place on the devices that will hold them."""
    module = abstract(make, config)

    @functools.partial(jax.jit, out_shardings=parameter_shardings(module, mesh))
    def parameters() -> Tree:
        return nnx.to_pure_dict(nnx.state(make(config, nnx.Rngs(config.seed))))

    return Model(nnx.graphdef(module), parameters())


def to_devices(module: nnx.Module, mesh: Mesh) -> Tree:
    """Places the parameters of a module that every process has read, by its axes."""
    return place(nnx.to_pure_dict(nnx.state(module)), parameter_shardings(module, mesh))


def place_rae(config: Config, mesh: Mesh, *, decoder: bool) -> Model:
    """Loads the frozen RAE (third-party, our checkpoint or random) and its latent statistics.

    Args:
        config: says where weights come from.
        mesh: parameters are copied to all of its devices.
        decoder: whether it is needed; stage 2 trains without.
    """
    statistics = config.encoder.statistics
    parameters: Tree = {"encoder": place_encoder(config, mesh)}
    if decoder:
        parameters["decoder"] = place_decoder(config, mesh)
    if statistics:
        parameters |= statistics_leaves(local_copy(statistics), config)
    return Model(rae_graph(config, decoder=decoder), place(parameters, replicated(mesh)))


def statistics_leaves(path: Path, config: Config) -> Tree:
    """Reads the leaves of an RAE that hold its latent statistics."""
    found = read_statistics(path, latent_grid(config), config.encoder.hidden_size)
    check_encoder(found, encoder_architecture(config), path)
    return {
        "latent_mean": jnp.asarray(found.mean, jnp.float32),
        "latent_scale": jnp.asarray(latent_scale(found.variance), jnp.float32),
    }


def place_encoder(config: Config, mesh: Mesh) -> Tree:
    """Loads the encoder: pretrained, from the EMA of a classification run, or random."""
    if config.encoder.pretrained:
        return to_devices(pretrained.pretrained_encoder(config), mesh)
    if config.encoder.checkpoint:
        like = shapes(abstract(make_classifier, config), mesh)
        return restore_ema(config.encoder.checkpoint, like)["rae"]["encoder"]
    log.warning("encoder: random weights; encoder.pretrained or encoder.checkpoint gives others")
    return initialize(make_encoder, config, mesh).parameters


def place_decoder(config: Config, mesh: Mesh) -> Tree:
    """Loads the decoder: pretrained, from the EMA of a reconstruction run, or random."""
    if config.decoder.pretrained:
        return to_devices(pretrained.pretrained_decoder(config), mesh)
    if config.decoder.checkpoint:
        check_run(
            config, storage_place(config.decoder.checkpoint), "decoder.num_heads", "decoder.pixels"
        )
        like = shapes(abstract(make_decoder, config), mesh)
        return restore_ema(config.decoder.checkpoint, like)
    log.warning("decoder: random weights; decoder.pretrained or decoder.checkpoint gives others")
    return initialize(make_decoder, config, mesh).parameters


def place_ddt(config: Config, workdir: Path, mesh: Mesh, step: int | None = None) -> Model:
    """Loads the DiT^DH to sample: the run's EMA, or `ddt.pretrained` before there is one.

    Args:
        config: of the run.
        workdir: of the run.
        mesh: the devices.
        step: to restore, from `newest_step`; None takes the newest one.

    Raises:
        CheckpointError: the run has no sound checkpoint, and `ddt.pretrained` names nothing.
        ConfigError: the run was trained as another network of the same shapes.
    """
    check_run(config, workdir, "flow.prediction", "ddt.num_heads", "ddt.use_rope")
    if step is not None:
        return restore_ddt(config, workdir / "checkpoints" / str(step), mesh)
    if config.ddt.pretrained and not decide(lambda: has_checkpoint(workdir)):
        log.info("no checkpoint in %s: taking %s", workdir, config.ddt.pretrained)
        module = pretrained.pretrained_ddt(config)
        return Model(nnx.graphdef(module), to_devices(module, mesh))
    return restore_ddt(config, workdir, mesh)


def check_run(config: Config, path: Path, *fields: str) -> None:
    """Refuses to use a run's network otherwise than it was trained, where no shape would tell.

    Args:
        config: of the command.
        path: the run; without a config.json nothing is compared.
        fields: dotted names, compared with the run's own config.

    Raises:
        ConfigError: a field differs; names it and both values.
    """
    run = decide(lambda: None if (found := find_run(path)) is None else str(found))
    if run is None:
        return
    theirs = read_config(storage_place(run))
    for name in fields:
        asked, trained = (operator.attrgetter(name)(values) for values in (config, theirs))
        if asked != trained:
            raise invalid_value(name, asked, f"{trained!r}, with which {run} was trained")


def restore_ddt(config: Config, path: Path, mesh: Mesh) -> Model:
    """Restores the EMA of a stage-2 run; `path` and errors are those of `restore_ema`."""
    module = abstract(make_ddt, config)
    return Model(nnx.graphdef(module), restore_ema(path, shapes(module, mesh)))


def initial_decoder(config: Config, mesh: Mesh) -> Tree | None:
    """Loads `decoder.pretrained` or `.checkpoint` for a new stage-1 run; None if both are ''."""
    source = config.decoder.pretrained or config.decoder.checkpoint
    if not source:
        return None
    log.info("starting from %s", source)
    return place_decoder(config, mesh)


def with_own_decoder(config: Config, workdir: Path) -> Config:
    """Returns the config with the decoder that a stage-1 run in `workdir` has trained.

    It goes before `decoder.pretrained` and `.checkpoint`, which such a run has only started from.
    Other runs have none of their own, and keep what the config names, if it names any.
    """
    named = config.decoder.pretrained or config.decoder.checkpoint
    trained = config.trained_network == "decoder" and decide(lambda: has_checkpoint(workdir))
    if named and not trained:
        return config
    own = dataclasses.replace(config.decoder, pretrained="", checkpoint=str(workdir))
    return dataclasses.replace(config, decoder=own)
