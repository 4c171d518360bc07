"""Config -> the teacher of a few-step run, and the weights its student starts from."""

import logging

from flax import nnx
from jax.sharding import Mesh

from rae_dit.config import Config
from rae_dit.models.ddt import DDT
from rae_dit.objectives.base import Tree
from rae_dit.objectives.teacher import Teacher, make_teacher
from rae_dit.setup import pretrained, weights
from rae_dit.setup.models import abstract, make_ddt
from rae_dit.setup.networks import (
    abstract_network,
    initial_ddt,
    one_time,
    place_network,
    starting_network,
)

log = logging.getLogger(__name__)


def teacher_of(config: Config) -> Teacher:
    """Makes the teacher; reads the sizes of its networks and loads no weights.

    Raises:
        ConfigError: a network is for other latents or classes, or no stage-2 run.
        WeightsError: there is no such file, or it is no DiT^DH.
    """
    few = config.few_step
    guide = few.guide_checkpoint
    return make_teacher(
        nnx.graphdef(abstract_teacher(config)),
        nnx.graphdef(abstract_network(config, "few_step.guide_checkpoint", guide))
        if guide
        else None,
        guidance=few.guidance,
        scale=few.cfg_scale,
        interval=few.cfg_interval,
    )


def abstract_teacher(config: Config) -> DDT:
    """Returns the teacher's network without weights; one of the student's sizes if none is named.

    Raises:
        ConfigError: internal guidance of a network without second head.
    """
    path = config.few_step.teacher
    if not path:
        return abstract(make_ddt, one_time(config))
    network = abstract_network(config, "few_step.teacher", path)
    internal = config.few_step.guidance == "internal" and config.few_step.cfg_scale != 1
    if internal and not network.architecture.base_depth:
        pretrained.check("few_step", path, {"guidance": ("internal", "one head, 'cfg'")})
    return network


def place_frozen(config: Config, mesh: Mesh, *, has_teacher: bool) -> Tree:
    """Loads the frozen networks of a few-step run: "rae", and "teacher" and "guide" if it has."""
    cached = config.data.source == "latents"
    frozen: Tree = {
        "rae": {} if cached else weights.place_rae(config, mesh, decoder=False).parameters
    }
    few = config.few_step
    if not has_teacher:
        return frozen
    if few.teacher:
        frozen["teacher"] = place_network(config, "few_step.teacher", few.teacher, mesh).parameters
    else:
        log.warning("teacher: random weights; few_step.teacher gives others")
        frozen["teacher"] = weights.initialize(make_ddt, one_time(config), mesh).parameters
    if few.guide_checkpoint:
        guide = place_network(config, "few_step.guide_checkpoint", few.guide_checkpoint, mesh)
        frozen["guide"] = guide.parameters
    return frozen


def initial_student(config: Config, mesh: Mesh, *, has_teacher: bool) -> Tree | None:
    """Loads what a student starts from: what the config names, or else its teacher.

    Raises:
        ConfigError: the weights are of other sizes than the config says.
    """
    named = initial_ddt(config, mesh)
    path = config.few_step.teacher
    if named is not None or not path or not has_teacher:
        return named
    log.info("starting from the teacher, %s", path)
    return starting_network(config, "few_step.teacher", path, mesh)
