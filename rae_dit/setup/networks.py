"""DiT^DH beside the one that is sampled or trained: guide, teacher, and where training starts.

Each is the EMA of a run of ours or a third-party file. It may have any depth and widths; latents
and classes are those of the config.
"""

import dataclasses
import functools
import logging

import jax
from flax import nnx
from jax.sharding import Mesh

from rae_dit.config import Config, ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.models.ddt import DDT
from rae_dit.multihost import decide, share
from rae_dit.objectives.base import Tree
from rae_dit.setup import pretrained
from rae_dit.setup.compute import compute
from rae_dit.setup.models import abstract, latent_grid, make_ddt
from rae_dit.setup.weights import Model, restore_ddt, to_devices
from rae_dit.storage.places import place as storage_place
from rae_dit.training.sharding import parameter_shardings
from rae_dit.weights import released
from rae_dit.weights.architecture import ddt_architecture
from rae_dit.workdir import find_run, read_config

log = logging.getLogger(__name__)


def place_guide(config: Config, mesh: Mesh) -> Model:
    """Loads the weaker model of AutoGuidance; errors are those of `place_network`."""
    return place_network(config, "sample.guide_checkpoint", config.sample.guide_checkpoint, mesh)


def place_network(config: Config, field: str, path: str, mesh: Mesh) -> Model:
    """Loads a DiT^DH: the EMA of our run, or a third-party file.

    Args:
        config: gives latents, classes and how the network computes.
        field: of the config that names the path, for messages.
        path: workdir, checkpoint or file.
        mesh: the devices.

    Raises:
        ConfigError: it is for other latents or classes, or no stage-2 run.
        CheckpointError: the run has no sound checkpoint, or it has no EMA.
        WeightsError: there is no such file, or it is no DiT^DH.
    """
    theirs = config_of_run(config, field, path)
    if theirs is None:
        network = released.read_ddt(path, compute(config))
        check_network(config, field, path, network)
        return Model(nnx.graphdef(network), to_devices(network, mesh))
    check_network(config, field, path, abstract(make_ddt, theirs))
    return restore_ddt(theirs, storage_place(path), mesh)


def abstract_network(config: Config, field: str, path: str) -> DDT:
    """Returns the network of `place_network` with shapes in place of arrays."""
    theirs = config_of_run(config, field, path)
    if theirs is None:
        tensors, facts = released.open_ddt(path)
        sizes = ddt_architecture(tensors, **facts)
        network = nnx.eval_shape(lambda: DDT(sizes, compute(config), rngs=nnx.Rngs(0)))
    else:
        network = abstract(make_ddt, theirs)
    check_network(config, field, path, network)
    return network


def config_of_run(config: Config, field: str, path: str) -> Config | None:
    """Returns the config of the stage-2 run at a path, computing as ours; None for a file.

    Raises:
        ConfigError: the run is of another stage.
    """
    run = decide(lambda: None if (found := find_run(path)) is None else str(found))
    if run is None:
        return None
    theirs = share(lambda: read_config(storage_place(run)))
    if theirs.trained_network != "ddt":
        expected = f"a stage-2 run; the objective of that one is {theirs.objective!r}"
        raise invalid_value(field, path, expected)
    return dataclasses.replace(theirs, precision=config.precision, compute=config.compute)


def check_network(config: Config, field: str, path: str, network: DDT) -> None:
    """Raises ConfigError if a network is for other latents or classes than the config's."""
    side = network.architecture.input_size
    found = (side, side, network.in_channels), network.null_label
    latent = (latent_grid(config), latent_grid(config), config.encoder.hidden_size)
    if found != (latent, config.data.num_classes):
        expected = f"a model of latents {latent} (h, w, C) and {config.data.num_classes} classes"
        got = f"{path}, of latents {found[0]} and {found[1]} classes"
        raise ConfigError(f"{field}: got {got}; expected {expected}")


def one_time(config: Config) -> Config:
    """Returns the config of the same DiT^DH with one time, as flow matching trains it."""
    return dataclasses.replace(
        config,
        objective="flow_matching",
        ddt=dataclasses.replace(config.ddt, interval_embedding=False),
        sample=dataclasses.replace(config.sample, method="euler"),
    )


def initial_ddt(config: Config, mesh: Mesh) -> Tree | None:
    """Loads what a new stage-2 run starts from: `ddt.checkpoint` or `ddt.pretrained`.

    A network with two times may start from one with one: its interval embedding is then new, and
    begins as zero.

    Returns:
        Parameters; None if both fields are ''.

    Raises:
        ConfigError: the weights are of other sizes than the config says.
    """
    source = config.ddt.checkpoint or config.ddt.pretrained
    if not source:
        return None
    log.info("starting from %s", source)
    if not config.ddt.pretrained:
        return starting_network(config, "ddt.checkpoint", source, mesh)
    before = one_time(config) if config.ddt.interval_embedding else None
    parameters = to_devices(pretrained.pretrained_ddt(config, before), mesh)
    return with_interval_embedding(config, parameters, mesh)


def starting_network(config: Config, field: str, path: str, mesh: Mesh) -> Tree:
    """Loads another network's parameters to start from; arguments are those of `place_network`.

    Raises:
        ConfigError: the network is of other sizes than the config says.
    """
    model = place_network(config, field, path, mesh)
    found = nnx.merge(*model).architecture
    two_times = config.ddt.interval_embedding and not found.interval_embedding
    pretrained.check_ddt(one_time(config) if two_times else config, path, found)
    return with_interval_embedding(config, model.parameters, mesh)


def with_interval_embedding(config: Config, parameters: Tree, mesh: Mesh) -> Tree:
    """Adds a new interval embedding to a DDT's parameters, if the config has one and they do not.

    Its second layer is zero, so the network stays what it was for every interval.
    """
    if not config.ddt.interval_embedding or "interval_embedding" in parameters:
        return parameters
    name = "interval_embedding"
    shardings = parameter_shardings(abstract(make_ddt, config), mesh)[name]

    @functools.partial(jax.jit, out_shardings=shardings)
    def make() -> Tree:
        return nnx.to_pure_dict(nnx.state(make_ddt(config, nnx.Rngs(config.seed))))[name]

    log.info("the interval embedding is new: the network starts as it was for every interval")
    return parameters | {name: make()}
