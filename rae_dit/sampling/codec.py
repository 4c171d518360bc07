"""Jitted encode, decode and reconstruct for the frozen RAE.

Parameters are arguments; the graph definition is static.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from rae_dit import compiler
from rae_dit.models.pixels import to_unit
from rae_dit.objectives.base import Tree

Image = Float[Array, "B H W 3"] | UInt8[Array, "B H W 3"]


@compiler.jit(static_argnums=0)
def encode(
    graph: nnx.GraphDef, parameters: Tree | nnx.State, image: Image
) -> Float[Array, "B h w D"]:
    """Encodes images, uint8 or float32 in [0, 1], to normalized float32 latents."""
    return nnx.merge(graph, parameters).encode(to_unit(image))


@compiler.jit(static_argnums=0)
def decode(
    graph: nnx.GraphDef, parameters: Tree | nnx.State, latents: Float[Array, "B h w D"]
) -> Float[Array, "B H W 3"]:
    """Decodes latents to float32 images, clipped to [0, 1] because the decoder may overshoot."""
    return jnp.clip(nnx.merge(graph, parameters).decode(latents), 0, 1)


@compiler.jit(static_argnums=0)
def reconstruct(
    graph: nnx.GraphDef, parameters: Tree | nnx.State, image: Image
) -> Float[Array, "B H W 3"]:
    """Computes decode(encode(image)) as one program: latents stay on the device."""
    rae = nnx.merge(graph, parameters)
    return jnp.clip(rae.decode(rae.encode(to_unit(image))), 0, 1)
