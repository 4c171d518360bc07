"""Teachers: frozen velocities, guided or not, that another network learns from."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from rae_dit.diffusion.guidance import Model, guided_velocity, internal
from rae_dit.models.merge import merge_for_loop
from rae_dit.objectives.base import Tree

Teacher = Callable[[Tree], Model]
"""Frozen parameters, "teacher" and for AutoGuidance "guide" among them -> its velocity."""


def make_teacher(
    graph: nnx.GraphDef,
    guide_graph: nnx.GraphDef | None = None,
    *,
    guidance: str = "cfg",
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Teacher:
    """Makes a teacher whose guidance depends on the time of each sample.

    A sample with the null label has the teacher's unlabeled velocity under CFG at any scale.

    Args:
        graph: structure of a DDT; of one with two times the velocity at r = t is taken.
        guide_graph: structure of the weaker model of "autoguidance".
        guidance: "cfg", "autoguidance" or "internal".
        scale: of guidance; 1 is none, and costs one evaluation.
        interval: inclusive (lowest, highest) time of guidance.
    """
    low, high = interval

    def teacher(frozen: Tree) -> Model:
        network = merge_for_loop(graph, frozen["teacher"])
        if scale == 1.0:
            return network.velocity
        if guidance == "internal":
            return internal(network.heads, scale=scale, interval=interval)
        guide = (
            None if guide_graph is None else merge_for_loop(guide_graph, frozen["guide"]).velocity
        )

        def model(x: Array, t: Array, labels: Array) -> Array:
            scales = jnp.where((low <= t) & (t <= high), scale, 1.0)
            scales = scales.reshape(-1, *(1,) * (x.ndim - 1))
            velocity = guided_velocity(
                guidance, network.velocity, guide, labels, scales, null_label=network.null_label
            )
            assert velocity is not None  # "internal" is above
            return velocity(x, t)

        return model

    return teacher
