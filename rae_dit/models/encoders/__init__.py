"""Representation encoders: one file per family, and the list of all families."""

from flax import nnx

from rae_dit.architecture import Compute, EncoderArchitecture
from rae_dit.models.encoders.base import VisionTransformer
from rae_dit.models.encoders.dinov2 import DINOV2
from rae_dit.models.encoders.dinov3 import DINOV3
from rae_dit.models.encoders.family import EncoderFamily
from rae_dit.models.encoders.mae import MAE
from rae_dit.models.encoders.siglip import SIGLIP

# A new family is one file, a line here and a name in `config.models.EncoderConfig.family`.
FAMILIES = (DINOV2, DINOV3, SIGLIP, MAE)


def find_family(name: str) -> EncoderFamily:
    """Returns the record of a family.

    Raises:
        ValueError: if there is no such family.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    names = ", ".join(repr(family.name) for family in FAMILIES)
    raise ValueError(f"encoder.family: got {name!r}; expected one of {names}")


def make_encoder(
    architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs
) -> VisionTransformer:
    """Builds an encoder of the family that its architecture names, with random weights."""
    return find_family(architecture.family).module(architecture, compute, rngs=rngs)
