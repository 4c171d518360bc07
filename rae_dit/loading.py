"""Weights from files, laid out over a mesh.

What training and sampling pass around is a `Model`: the graph of an NNX module and a plain dict of
arrays.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rae_dit import pretrained
from rae_dit.build import (
    abstract,
    latent_grid,
    make_classifier,
    make_ddt,
    make_decoder,
    make_encoder,
    rae_graph,
)
from rae_dit.config import Config
from rae_dit.models.rae import latent_scale
from rae_dit.runs import has_checkpoint
from rae_dit.training.checkpoint import restore_ema
from rae_dit.training.objective import Tree
from rae_dit.training.sharding import parameter_shardings, replicated
from rae_dit.training.state import TrainState
from rae_dit.weights.statistics import read_statistics

log = logging.getLogger(__name__)


class Model(NamedTuple):
    """An NNX module taken apart: `nnx.merge(graph, parameters)` puts it together."""

    graph: nnx.GraphDef
    parameters: Tree


def shapes(module: nnx.Module, mesh: Mesh) -> Tree:
    """The parameters of an abstract module as `ShapeDtypeStruct`s with their shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nnx.to_pure_dict(nnx.state(module)),
        parameter_shardings(module, mesh),
    )


def initialise(make: Callable[[Config, nnx.Rngs], nnx.Module], config: Config, mesh: Mesh) -> Model:
    """Initial parameters, made in place on the devices that will hold them."""
    module = abstract(make, config)

    @functools.partial(jax.jit, out_shardings=parameter_shardings(module, mesh))
    def parameters() -> Tree:
        return nnx.to_pure_dict(nnx.state(make(config, nnx.Rngs(config.seed))))

    return Model(nnx.graphdef(module), parameters())


def placed(module: nnx.Module, mesh: Mesh) -> Tree:
    """The parameters of a module that every process has read, laid out as its axes say."""
    on_host = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module)))
    return jax.device_put(on_host, parameter_shardings(module, mesh))


def load_rae(config: Config, mesh: Mesh, *, decoder: bool) -> Model:
    """The frozen autoencoder: weights of others, from checkpoints of ours or initial; statistics.

    Args:
        config: says where weights come from.
        mesh: parameters are copied to all of its devices.
        decoder: whether it is needed; stage 2 trains without.
    """
    statistics = config.encoder.statistics
    parameters: Tree = {"encoder": load_encoder(config, mesh)}
    if decoder:
        parameters["decoder"] = load_decoder(config, mesh)
    if statistics:
        parameters |= load_statistics(Path(statistics), config)
    return Model(rae_graph(config, decoder=decoder), jax.device_put(parameters, replicated(mesh)))


def load_statistics(path: Path, config: Config) -> Tree:
    """The leaves of an RAE that hold its latent statistics."""
    found = read_statistics(path, latent_grid(config), config.encoder.hidden_size)
    return {
        "latent_mean": jnp.asarray(found.mean, jnp.float32),
        "latent_scale": jnp.asarray(latent_scale(found.variance), jnp.float32),
    }


def load_encoder(config: Config, mesh: Mesh) -> Tree:
    """The encoder's parameters: pretrained, from the EMA of a classification run, or initial."""
    if config.encoder.pretrained:
        return placed(pretrained.load_encoder(config), mesh)
    if config.encoder.checkpoint:
        like = shapes(abstract(make_classifier, config), mesh)
        return restore_ema(Path(config.encoder.checkpoint), like)["rae"]["encoder"]
    log.warning("encoder: random weights; encoder.pretrained or encoder.checkpoint gives others")
    return initialise(make_encoder, config, mesh).parameters


def load_decoder(config: Config, mesh: Mesh) -> Tree:
    """The decoder's parameters: pretrained, from the EMA of a reconstruction run, or initial."""
    if config.decoder.pretrained:
        return placed(pretrained.load_decoder(config), mesh)
    if config.decoder.checkpoint:
        like = shapes(abstract(make_decoder, config), mesh)
        return restore_ema(Path(config.decoder.checkpoint), like)
    log.warning("decoder: random weights; decoder.pretrained or decoder.checkpoint gives others")
    return initialise(make_decoder, config, mesh).parameters


def load_ddt(config: Config, workdir: Path, mesh: Mesh) -> Model:
    """The DiT^DH to sample from: the newest EMA of the run, or `ddt.pretrained` before it has one.

    Raises:
        CheckpointError: the run has no sound checkpoint, and `ddt.pretrained` names nothing.
    """
    if config.ddt.pretrained and not has_checkpoint(workdir):
        log.info("no checkpoint in %s: taking %s", workdir, config.ddt.pretrained)
        module = pretrained.load_ddt(config)
        return Model(nnx.graphdef(module), placed(module, mesh))
    return restore_ddt(config, workdir, mesh)


def restore_ddt(config: Config, path: Path, mesh: Mesh) -> Model:
    """The EMA of a stage-2 run; `path` and errors are those of `restore_ema`."""
    module = abstract(make_ddt, config)
    return Model(nnx.graphdef(module), restore_ema(path, shapes(module, mesh)))


def start_from_pretrained(config: Config, state: TrainState, mesh: Mesh) -> TrainState:
    """A new stage-2 run's state with `ddt.pretrained` as parameters and EMA, if it names any."""
    if config.objective != "flow_matching" or not config.ddt.pretrained:
        return state
    log.info("starting from %s", config.ddt.pretrained)
    module = pretrained.load_ddt(config)
    # Two copies: a step donates both.
    return dataclasses.replace(state, params=placed(module, mesh), ema=placed(module, mesh))


def load_frozen(config: Config, mesh: Mesh) -> Tree:
    """What the config's objective uses and does not train."""
    if config.objective == "classification":
        return {}
    return load_rae(config, mesh, decoder=False).parameters
