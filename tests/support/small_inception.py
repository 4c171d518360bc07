"""A stand-in for the Inception network."""

import numpy as np
from flax import nnx

from rae_dit.models.inception import InceptionFeatures


class Projections(nnx.Module):
    """Random projections of pixels; narrow, as a distance costs the cube of the width."""

    def __init__(self):
        widths = {"pool": 16, "spatial": 12, "logits": 10}
        rng = np.random.default_rng(0)
        for name, width in widths.items():
            kernel = rng.normal(size=(192, width)) / 14
            setattr(self, name, nnx.Param(kernel.astype(np.float32)))

    def __call__(self, image):
        x = image.reshape(len(image), -1) / 255.0
        return InceptionFeatures(x @ self.pool[...], x @ self.spatial[...], x @ self.logits[...])
