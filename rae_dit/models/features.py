"""What a discriminator looks through: a frozen vision transformer, its tokens block by block.

Source: bytetriper/RAE `disc/dinodisc.py`, after VAR. GELU has its tanh form there, which DINO was
not trained with; features are 1e-4 apart (golden file `disc`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.encoders.base import VisionTransformer, small_normal
from rae_dit.models.layers import gelu_tanh, patchify
from rae_dit.models.stack import unstack
from rae_dit.models.transformer import prepend

Triple = tuple[float, float, float]


class DINO(VisionTransformer):
    """The vision transformer of DINO: CLS before the patches, positions on all, nothing else.

    Args:
        **trunk: the arguments of `VisionTransformer`, but for `position_grid`: the position table
            is that of `input_size`.
    """

    def __init__(self, *, input_size: int, patch_size: int, rngs: nnx.Rngs, **trunk: Any):
        grid = input_size // patch_size
        super().__init__(
            input_size=input_size,
            patch_size=patch_size,
            position_grid=grid,
            eps=1e-6,
            activation=gelu_tanh,
            rngs=rngs,
            **trunk,
        )
        self.cls_token = small_normal((1, self.hidden_size), rngs)
        self.position = small_normal((1 + grid**2, self.hidden_size), rngs)

    def place(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """[CLS + p_0, patches + p_1..N]."""
        position = self.position[...]
        x = patches + position[1:].astype(patches.dtype)
        return prepend(self.cls_token[...] + position[:1], x)


class Features(nnx.Module):
    """What a frozen vision transformer sees in an image, block by block.

    Args:
        network: the transformer.
        image_mean: per-channel mean of its training images, in [0, 1].
        image_std: per-channel deviation.
        layers: numbers of the blocks whose outputs are taken, from 0; may repeat.

    Raises:
        ValueError: a layer that the network does not have.
    """

    def __init__(
        self,
        network: VisionTransformer,
        *,
        image_mean: Triple,
        image_std: Triple,
        layers: tuple[int, ...],
    ):
        if not all(0 <= layer < network.trunk.depth for layer in layers):
            raise ValueError(
                f"Features of layers {layers} were asked for, of a network with blocks 0 ... "
                f"{network.trunk.depth - 1}."
            )
        self.network = network
        self.image_mean = image_mean
        self.image_std = image_std
        self.layers = layers

    def __call__(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B N D"]]:
        """The patch tokens after each of `layers`, not normalised, in the compute dtype.

        Args:
            image: float32, made for [0, 1], any size: resized bilinearly without antialiasing.
        """
        network = self.network
        shape = (image.shape[0], network.input_size, network.input_size, 3)
        if image.shape != shape:
            image = jax.image.resize(
                image, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST
            )
        image = (image - jnp.asarray(self.image_mean)) / jnp.asarray(self.image_std)
        patches = patchify(image.astype(network.dtype), network.patch_size)
        x = network.place(network.embed(patches))
        graph, stacked = nnx.split(network.trunk.blocks)
        tokens = {}
        for number, parameters in enumerate(unstack(stacked, network.trunk.depth)):
            if number > max(self.layers):
                break
            x = nnx.merge(graph, parameters)(x)
            tokens[number] = x[:, -(network.grid**2) :]
        return [tokens[layer] for layer in self.layers]
