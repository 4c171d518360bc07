"""Frozen networks of stage 1 on the devices: encoder, LPIPS, features of the discriminator."""

import logging

from jax.sharding import Mesh

from rae_dit.config import Config
from rae_dit.multihost import place
from rae_dit.objectives.base import Tree
from rae_dit.setup.gan import make_dino, pretrained_dino, pretrained_lpips
from rae_dit.setup.models import make_lpips
from rae_dit.setup.weights import initialize, place_rae, to_devices
from rae_dit.training.sharding import replicated

log = logging.getLogger(__name__)


def place_stage1(config: Config, mesh: Mesh) -> Tree:
    """Loads the frozen networks of stage 1: encoder, LPIPS and the discriminator's features."""
    rae = place_rae(config, mesh, decoder=False).parameters
    frozen: Tree = {"rae": rae}
    if config.perceptual.weight:
        frozen["lpips"] = place_lpips(config, mesh)
    if config.gan.weight:
        frozen["features"] = {"network": place_features(config, mesh, rae["encoder"])}
    return place(frozen, replicated(mesh))


def place_lpips(config: Config, mesh: Mesh) -> Tree:
    """Loads LPIPS from the files that `perceptual` names, or random."""
    if config.perceptual.vgg:
        return to_devices(pretrained_lpips(config), mesh)
    log.warning("LPIPS: random weights; perceptual.vgg and perceptual.linear give others")
    return initialize(make_lpips, config, mesh).parameters


def place_features(config: Config, mesh: Mesh, encoder: Tree) -> Tree:
    """Loads the discriminator's features: the run's encoder, DINO from a file, or random."""
    if config.discriminator.features == "encoder":
        return encoder
    if config.discriminator.pretrained:
        return to_devices(pretrained_dino(config), mesh)
    log.warning("discriminator: features of random weights; discriminator.pretrained gives others")
    return initialize(make_dino, config, mesh).parameters
