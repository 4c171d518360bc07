"""Feature extractors for the metrics: Inception-v3 (2015-12-05), and a digit classifier.

An extractor maps float32 images [b, H, W, 3] in [0, 1] to `Features` in numpy. The Inception gets
them as a saved picture holds them, truncated to integers 0..255 as in the reference's tools, so
that images evaluated as they are made and images read from files have the same features. The digit
classifier gets the floats.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt8

from rae_dit.data.transforms import to_uint8
from rae_dit.evaluation.digits import DigitClassifier, pixel_features
from rae_dit.evaluation.metrics.base import Features
from rae_dit.models.inception import InceptionFeatures, InceptionV3


class FeatureExtractor(Protocol):
    """Computes features of images; `identity` distinguishes the features of two extractors."""

    @property
    def identity(self) -> str:
        """Text that changes whenever the features of the same images would."""
        ...

    def __call__(self, images: np.ndarray) -> Features:
        """Computes features of float32 [b, H, W, 3] in [0, 1], b >= 1."""
        ...


@dataclass(frozen=True, eq=False)
class InceptionExtractor:
    """The Inception on all devices of this process; `InceptionExtractor.of` makes one.

    Attributes:
        graph: of the network.
        parameters: of the network, a copy on each device.
        rows: how images are split over the devices.
        batch_size: images of one call of the network; smaller batches are padded.
        identity: hash of the file of weights.
    """

    graph: nnx.GraphDef
    parameters: nnx.State
    rows: NamedSharding
    batch_size: int
    identity: str

    @classmethod
    def of(cls, network: InceptionV3, *, batch_size: int, identity: str) -> Self:
        """Puts a network on the devices of this process."""
        mesh = Mesh(np.array(jax.local_devices()), ("images",))
        graph, parameters = nnx.split(network)
        return cls(
            graph,
            jax.device_put(parameters, NamedSharding(mesh, PartitionSpec())),
            NamedSharding(mesh, PartitionSpec("images")),
            -(-batch_size // mesh.size) * mesh.size,
            identity,
        )

    def __call__(self, images: np.ndarray) -> Features:
        """Computes features; see `FeatureExtractor`."""
        parts = []
        for start in range(0, len(images), self.batch_size):
            some = to_uint8(images[start : start + self.batch_size])
            filled = np.resize(some, (self.batch_size, *some.shape[1:]))
            found = extract(self.graph, self.parameters, jax.device_put(filled, self.rows))
            parts.append([np.asarray(values)[: len(some)] for values in found])
        pool, spatial, logits = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Features(pool, spatial, logits)


@jax.jit(static_argnums=0)
def extract(
    graph: nnx.GraphDef, parameters: nnx.State, images: UInt8[Array, "B H W 3"]
) -> InceptionFeatures:
    """Computes the network's features of uint8 images."""
    features: InceptionFeatures = nnx.merge(graph, parameters)(images)
    return features


@dataclass(frozen=True)
class DigitFeatures:
    """Gray levels as features, and the class predicted by a classifier of real digits.

    Attributes:
        classifier: fitted on real digits.
        identity: what it was fitted on.
    """

    classifier: DigitClassifier
    identity: str

    def __call__(self, images: np.ndarray) -> Features:
        """Computes features; see `FeatureExtractor`."""
        return Features(pool=pixel_features(images), classes=self.classifier.predict(images))
