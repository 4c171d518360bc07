"""Features for a discriminator: a frozen vision transformer's tokens, block by block.

Source: bytetriper/RAE `disc/dinodisc.py`, after VAR. GELU has its tanh form there, which DINO was
not trained with; features are 1e-4 apart (golden file `disc`).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, EncoderArchitecture, Triple
from rae_dit.models.encoders.base import VisionTransformer, small_normal
from rae_dit.models.transformer import prepend


class DINO(VisionTransformer):
    """The vision transformer of DINO: CLS before the patches, positions on all, nothing else.

    Arguments and errors are those of `VisionTransformer`. The position table is not interpolated.

    Raises:
        ValueError: if `position_grid` is not that of the input size.
    """

    def __init__(self, architecture: EncoderArchitecture, compute: Compute, *, rngs: nnx.Rngs):
        super().__init__(architecture, compute, rngs=rngs)
        width = architecture.hidden_size
        if architecture.position_grid != self.grid:
            raise ValueError(
                f"position_grid: got {architecture.position_grid}; expected {self.grid} = "
                "input_size / patch_size (DINO's positions are not interpolated)"
            )
        self.cls_token = small_normal((1, width), rngs)
        self.position = small_normal((1 + self.grid**2, width), rngs)

    def embed_tokens(self, patches: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Returns [CLS + p_0, patches + p_1..N]."""
        position = self.position[...]
        x = patches + position[1:].astype(patches.dtype)
        return prepend(self.cls_token[...] + position[:1], x)


class Features(nnx.Module):
    """Tokens of an image after several blocks of a frozen vision transformer.

    Args:
        network: the transformer.
        image_mean: per-channel mean of its training images, in [0, 1].
        image_std: per-channel deviation.
        layers: numbers of the blocks whose outputs are taken, from 0; may repeat.

    Raises:
        ValueError: if the network lacks one of the layers.
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
                f"layers: got {layers}; expected blocks 0 ... {network.trunk.depth - 1}"
            )
        self.network = network
        self.image_mean = image_mean
        self.image_std = image_std
        self.layers = layers

    def __call__(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B N D"]]:
        """Returns the patch tokens after each of `layers`, not normalized, in the compute dtype.

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
        return network.block_outputs(image, self.layers)
