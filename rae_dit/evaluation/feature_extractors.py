"""Who looks at images for the metrics: the Inception of 2015, or a reader of digits.

A judge is called with float32 images [b, H, W, 3] in [0, 1] and answers with `Features` in numpy.
The Inception sees what a saved picture would hold, whole numbers 0..255 cut off as the reference's
tools do, so that images judged as they are made and images read back from files agree. The reader
of digits sees the floats.
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
    """Turns images into features; `identity` tells one judge's features from another's."""

    @property
    def identity(self) -> str:
        """Changes whenever the features of the same images would."""
        ...

    def __call__(self, images: np.ndarray) -> Features:
        """Features of float32 [b, H, W, 3] in [0, 1], b >= 1."""
        ...


@dataclass(frozen=True, eq=False)
class InceptionExtractor:
    """The Inception on all devices of this process; make one with `InceptionExtractor.of`.

    Attributes:
        graph: of the network.
        parameters: of the network, a copy on each device.
        rows: how images are split over the devices.
        batch_size: images of one call of the network; fewer are filled up.
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
        """See `FeatureExtractor`."""
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
    """The network's features of uint8 images."""
    features: InceptionFeatures = nnx.merge(graph, parameters)(images)
    return features


@dataclass(frozen=True)
class DigitFeatures:
    """Grey levels as features, and a classifier fitted on real images that reads the class.

    Attributes:
        reader: the classifier.
        identity: what it was fitted on.
    """

    reader: DigitClassifier
    identity: str

    def __call__(self, images: np.ndarray) -> Features:
        """See `FeatureExtractor`."""
        return Features(pool=pixel_features(images), classes=self.reader.predict(images))
