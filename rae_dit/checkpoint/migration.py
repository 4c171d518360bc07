"""Leaves that checkpoints of an earlier version lack, and the values that stand for them.

Until 2026-12 a decoder computed its positions and no checkpoint held them. Where the stored leaves
are a decoder's without positions, those are filled in: with the sines and cosines that were used,
and their moments with zeros, which is what an untrained leaf has.
"""

import logging
import math
from collections.abc import Container, Mapping

import jax
import numpy as np

from rae_dit.models.decoder import decoder_positions

log = logging.getLogger(__name__)

Structs = Mapping[str, jax.ShapeDtypeStruct]

POSITION = "position"
# Beside the positions of a decoder, and of no DiT^DH and no encoder, which had theirs before.
DECODER_LEAF = "predict/kernel"


def stored_leaves(stored: Container[str], wanted: Structs) -> Structs:
    """Returns the wanted leaves without those that an earlier version did not store.

    Args:
        stored: names of the leaves of one item, such as 'opt_state/0/mu/cls_token'.
        wanted: leaves to restore by name. One that is missing for another reason stays.
    """

    def is_added(name: str) -> bool:
        *parents, last = name.split("/")
        beside = "/".join([*parents, DECODER_LEAF])
        return last == POSITION and name not in stored and beside in stored

    return {name: struct for name, struct in wanted.items() if not is_added(name)}


def with_added_leaves(named: Mapping[str, jax.Array], wanted: Structs) -> dict[str, jax.Array]:
    """Returns all wanted leaves in their order; those not among `named` are computed."""
    added = [name for name in wanted if name not in named]
    if added:
        log.info("checkpoint of an earlier version: filling in %s", ", ".join(added))
    return {
        name: jax.device_put(initial_value(name, struct.shape), struct.sharding)
        if name in added
        else named[name]
        for name, struct in wanted.items()
    }


def initial_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Computes a decoder's positions [1+N, D], or a moment of them; float32."""
    if name.startswith("opt_state/"):
        return np.zeros(shape, np.float32)
    rows, width = shape
    return decoder_positions(width, math.isqrt(rows - 1))
