r"""LPIPS: perceptual distance of two images in the features of VGG16.

Let f_l be the feature maps of VGG16 after the last ReLU before each pooling, and of the last
block, l = 1 ... 5, each pixel's vector of channels normalized to length one,

    g_l(x) = f_l(x) / (|f_l(x)| + 1e-10)                                                (1)

With non-negative weights w_l, one per channel, fitted to human judgments, and the mean taken over
pixels,

    d(x, y) = sum_l mean_hw sum_c w_lc (g_lc(x) - g_lc(y))^2                            (2)

Source: Zhang et al. 2018, arXiv 1801.03924, version 0.1 of the weights (`lpips` and taming's
`vgg.pth` hold the same); Simonyan & Zisserman 2014 for VGG16.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.layers import Dtype

# Convolutions of VGG16 by block: input and output channels.
BLOCKS = (
    ((3, 64), (64, 64)),
    ((64, 128), (128, 128)),
    ((128, 256), (256, 256), (256, 256)),
    ((256, 512), (512, 512), (512, 512)),
    ((512, 512), (512, 512), (512, 512)),
)
# Mean and deviation of the channels of images in [-1, 1], as LPIPS has them.
MEAN = (-0.030, -0.088, -0.188)
STD = (0.458, 0.448, 0.450)
MINIMUM_SIZE = 16  # pixels; four poolings leave one


class VGG16(nnx.Module):
    """The convolutions of VGG16, with the paper's names: conv1_1 ... conv5_3.

    Args:
        dtype: compute dtype; parameters are float32.
        rngs: where initial values come from.
    """

    def __init__(self, *, dtype: Dtype, rngs: nnx.Rngs):
        for name, (inputs, outputs) in convolutions():
            convolution = nnx.Conv(inputs, outputs, (3, 3), padding=1, dtype=dtype, rngs=rngs)
            setattr(self, name, convolution)

    def __call__(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        """Returns the features of each of the five blocks, before pooling."""
        features = []
        x = image
        for number, block in enumerate(BLOCKS, start=1):
            if number > 1:
                x = max_pool(x)
            for index in range(1, len(block) + 1):
                x = jax.nn.relu(getattr(self, f"conv{number}_{index}")(x))
            features.append(x)
        return features


class LPIPS(nnx.Module):
    """Perceptual distance: equation (2).

    Args:
        dtype: compute dtype of the convolutions; parameters and distances are float32.
        rngs: where initial values come from.
    """

    def __init__(self, *, dtype: Dtype = jnp.float32, rngs: nnx.Rngs):
        self.vgg = VGG16(dtype=dtype, rngs=rngs)
        for number, block in enumerate(BLOCKS, start=1):
            channels = block[-1][1]
            setattr(self, f"linear{number}", nnx.Param(jnp.full(channels, 1 / channels)))

    def __call__(
        self, image_a: Float[Array, "B H W 3"], image_b: Float[Array, "B H W 3"]
    ) -> Float[Array, " B"]:
        """Computes the distance of each pair of images.

        Args:
            image_a: float32, at least 16 pixels a side, made for [0, 1]; values outside are taken
                as they are, so that a decoder is pulled back.
            image_b: the same shape.

        Returns:
            float32, 0 for equal images; gradients are finite there too.

        Raises:
            ValueError: the images are too small to be pooled four times.
        """
        if min(image_a.shape[1:3]) < MINIMUM_SIZE:
            raise ValueError(
                f"LPIPS got images of {image_a.shape[1]}x{image_a.shape[2]} pixels; expected at "
                f"least {MINIMUM_SIZE} a side; VGG16 halves them four times."
            )
        distance = jnp.zeros(image_a.shape[0])
        maps = zip(self.features(image_a), self.features(image_b), strict=True)
        for number, (a, b) in enumerate(maps, start=1):
            weight = getattr(self, f"linear{number}")[...]
            distance += jnp.mean(jnp.sum(jnp.square(a - b) * weight, axis=-1), axis=(1, 2))
        return distance

    def features(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        """Computes equation (1) in float32; one call per image, as one may need no gradient."""
        scaled = (2 * image.astype(jnp.float32) - 1 - jnp.asarray(MEAN)) / jnp.asarray(STD)
        return [unit_length(maps.astype(jnp.float32)) for maps in self.vgg(scaled)]


def unit_length(features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Computes equation (1); the square of 1e-10 under the root keeps the gradient finite at 0."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    return features / (jnp.sqrt(squares + 1e-20) + 1e-10)


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Takes the largest of every 2 x 2 pixels; of equal ones, the first gets the gradient.

    The same as `nnx.max_pool`, whose gradient XLA computes on GPUs by sorting out indices of 32
    bits and scattering: 1.3 ms of a stage-1 step that moves 0.4 GB.
    """
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    return pool_even(x[:, : 2 * rows, : 2 * columns])


@jax.custom_vjp
def pool_even(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Computes `max_pool` of even sides."""
    return pool_with_index(x)[0]


def pool_with_index(x: Array) -> tuple[Array, Array]:
    """Returns the largest of every 2 x 2 pixels, and which it is: int8, 0 ... 3 in raster order."""
    batch, height, width, channels = x.shape
    cells = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    largest = cells[:, :, 0, :, 0]
    index = jnp.zeros(largest.shape, jnp.int8)
    for number in range(1, 4):
        other = cells[:, :, number // 2, :, number % 2]
        keep = (largest >= other) | jnp.isnan(largest)
        largest = jnp.where(keep, largest, other)
        index = jnp.where(keep, index, jnp.int8(number))
    return largest, index


def pool_backward(index: Array, gradient: Array) -> tuple[Array]:
    """Returns the gradient of all pixels: zero but for the largest ones."""
    batch, rows, columns, channels = index.shape
    number = jnp.arange(4, dtype=jnp.int8).reshape(2, 1, 2, 1)
    taken = index[:, :, None, :, None] == number
    spread = jnp.where(taken, gradient[:, :, None, :, None], 0)
    return (spread.reshape(batch, 2 * rows, 2 * columns, channels),)


pool_even.defvjp(pool_with_index, pool_backward)


def convolutions() -> list[tuple[str, tuple[int, int]]]:
    """Returns name and (input, output) channels of the 13 convolutions, in order."""
    return [
        (f"conv{number}_{index}", channels)
        for number, block in enumerate(BLOCKS, start=1)
        for index, channels in enumerate(block, start=1)
    ]
