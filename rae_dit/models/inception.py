r"""Inception-v3 of 2015-12-05, as TensorFlow released it: features of FID, sFID, Inception Score.

Any other Inception (torchvision's, for example) gives other numbers. This one differs in that

* images of 0..255 are resized to 299 x 299 as TensorFlow 1 did (resize.py), then (x - 128) / 128;
* the branches' average pools divide by the number of pixels inside the image, and the last block
  takes a maximum where the block before it takes an average (inception_blocks.py);
* there are 1008 classes, and the score uses the logits without their bias.

Everything is float32, products included, whatever the run's own precision is: metrics are compared
across machines.

Source: Szegedy et al. 2015, arXiv:1512.00567; the graph `classify_image_graph_def.pb`; features of
guided-diffusion's evaluator: pool_3, mixed_6/conv (sFID, first 7 channels), softmax.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from rae_dit.models.inception_blocks import BLOCKS, SPATIAL, Conv, Fork, Path, Pool
from rae_dit.models.resize import resize_like_tensorflow1

SIDE = 299  # pixels of the resized input
CLASSES = 1008
SPATIAL_CHANNELS = 7
BATCH_NORM_EPS = 1e-3
EXACT = jax.lax.Precision.HIGHEST


class InceptionFeatures(NamedTuple):
    """Features of a batch of images for the metrics; float32.

    Attributes:
        pool: [B, 2048], TensorFlow's pool_3.
        spatial: [B, 2023], 17 x 17 x 7 numbers of mixed_6/conv in raster order.
        logits: [B, 1008], without bias.
    """

    pool: Array
    spatial: Array
    logits: Array


class ConvNorm(nnx.Module):
    """Convolution, batch norm with fixed statistics, ReLU."""

    def __init__(self, in_width: int, conv: Conv):
        self.kernel = nnx.Param(jnp.zeros((*conv.size, in_width, conv.width)))
        self.scale = nnx.Param(jnp.ones(conv.width))
        self.bias = nnx.Param(jnp.zeros(conv.width))
        self.mean = nnx.Param(jnp.zeros(conv.width))
        self.variance = nnx.Param(jnp.ones(conv.width))
        self.stride = conv.stride
        self.padding = conv.padding

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B k l D"]:
        """Maps C channels to D."""
        x = jax.lax.conv_general_dilated(
            x,
            self.kernel[...],
            window_strides=(self.stride, self.stride),
            padding=self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=EXACT,
        )
        scale = self.scale[...] * jax.lax.rsqrt(self.variance[...] + BATCH_NORM_EPS)
        return jax.nn.relu((x - self.mean[...]) * scale + self.bias[...])


class Block(nnx.Module):
    """The convolutions of one entry of BLOCKS, each under its name."""

    def __init__(self, name: str, in_width: int):
        self.name = name
        self.out_width = self.add(BLOCKS[name], in_width)

    def add(self, path: Path, width: int) -> int:
        """Makes the convolutions of a path; returns the number of channels at its end."""
        for step in path:
            match step:
                case Conv():
                    setattr(self, step.name, ConvNorm(width, step))
                    width = step.width
                case Fork():
                    width = sum(self.add(inner, width) for inner in step.paths)
        return width

    def run(self, path: Path, x: Float[Array, "B h w C"]) -> Float[Array, "B k l D"]:
        """Applies a path of this block."""
        for step in path:
            match step:
                case Conv():
                    x = getattr(self, step.name)(x)
                case Pool():
                    x = pool(x, step)
                case Fork():
                    x = jnp.concatenate([self.run(inner, x) for inner in step.paths], axis=-1)
        return x

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B k l D"]:
        """Applies the block to a batch."""
        return self.run(BLOCKS[self.name], x)


class Classifier(nnx.Module):
    """Parameters of the last layer; the file has a bias, which Inception Score does not use."""

    def __init__(self, width: int):
        self.kernel = nnx.Param(jnp.zeros((width, CLASSES)))
        self.bias = nnx.Param(jnp.zeros(CLASSES))


class InceptionV3(nnx.Module):
    """The network without weights: `weights.inception` fills it. Nothing here is trained."""

    def __init__(self) -> None:
        width = 3
        for name in BLOCKS:
            block = Block(name, width)
            setattr(self, name, block)
            width = block.out_width
        self.fc = Classifier(width)

    def stages(self, image: Float[ArrayLike, "B H W 3"]) -> Iterator[tuple[str, Array]]:
        """Yields (name, output) of the blocks in order, and of the branch that sFID uses.

        Args:
            image: numbers 0..255, of any size.
        """
        x = resize_like_tensorflow1(jnp.asarray(image, jnp.float32), SIDE)
        x = (x - 128.0) / 128.0
        for name in BLOCKS:
            block = getattr(self, name)
            if name == SPATIAL[0]:
                yield "spatial", getattr(block, SPATIAL[1])(x)  # computed once: XLA merges both
            x = block(x)
            yield name, x

    def __call__(self, image: Float[ArrayLike, "B H W 3"]) -> InceptionFeatures:
        """Computes the features of images in 0..255 (whole numbers, as in a file)."""
        outputs = dict(self.stages(image))
        pooled = jnp.mean(outputs["Mixed_7c"], axis=(1, 2))
        spatial = outputs["spatial"][..., :SPATIAL_CHANNELS]
        logits = jnp.matmul(pooled, self.fc.kernel[...], precision=EXACT)
        return InceptionFeatures(pooled, spatial.reshape(len(spatial), -1), logits)


def pool(x: Float[Array, "B h w C"], step: Pool) -> Float[Array, "B k l C"]:
    """Applies a 3 x 3 pool; at stride 1 the grid keeps its size."""
    window, strides = (1, 3, 3, 1), (1, step.stride, step.stride, 1)
    padding = "SAME" if step.stride == 1 else "VALID"
    if step.kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding)
    ones = jnp.ones((1, *x.shape[1:3], 1))
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, window, strides, padding)
