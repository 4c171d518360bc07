"""The frozen autoencoder at work, compiled: parameters are arguments, the structure is static."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit import compiler
from rae_dit.objectives.base import Tree


@compiler.jit(static_argnums=0)
def encode(
    graph: nnx.GraphDef, parameters: Tree | nnx.State, image: Float[Array, "B H W 3"]
) -> Float[Array, "B h w D"]:
    """Images, float32 in [0, 1] -> normalised float32 latents."""
    return nnx.merge(graph, parameters).encode(image)


@compiler.jit(static_argnums=0)
def decode(
    graph: nnx.GraphDef, parameters: Tree | nnx.State, latents: Float[Array, "B h w D"]
) -> Float[Array, "B H W 3"]:
    """Latents -> float32 images in [0, 1], clipped: the decoder may overshoot."""
    return jnp.clip(nnx.merge(graph, parameters).decode(latents), 0, 1)


@compiler.jit(static_argnums=0)
def reconstruct(
    graph: nnx.GraphDef, parameters: Tree | nnx.State, image: Float[Array, "B H W 3"]
) -> Float[Array, "B H W 3"]:
    """decode(encode(image)) as one program: the latents stay on the device."""
    rae = nnx.merge(graph, parameters)
    return jnp.clip(rae.decode(rae.encode(image)), 0, 1)
