"""Weights by rule: a tensor's numbers follow from its name and shape (golden/README.md)."""

import functools
import json
import zlib

import numpy as np

from support.golden_files import GOLDEN


def by_rule(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor of a name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = 0.5 + random.random(shape)
    elif len(shape) > 1:
        value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        value = 1 + 0.1 * random.standard_normal(shape)
    else:
        value = 0.1 * random.standard_normal(shape)
    return value.astype(np.float32)


@functools.lru_cache(maxsize=1)
def inception_tensors() -> dict[str, np.ndarray]:
    """The state dict of the Inception of golden/inception.npz, counters included."""
    manifest = json.loads((GOLDEN / "inception_manifest.json").read_text())
    counter = np.zeros((), np.int64)
    return {
        name: by_rule(name, tuple(shape)) if shape else counter for name, shape in manifest.items()
    }
