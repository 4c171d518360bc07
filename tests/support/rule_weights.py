"""Weights by rule: a tensor's numbers follow from its name and shape (golden/README.md)."""

import functools
import json
import zlib
from pathlib import Path

import numpy as np
from flax import nnx

from rae_dit.models.lpips import LPIPS
from rae_dit.weights.lpips import vgg_entries
from rae_dit.weights.mapping import export_shapes, parameters_of
from rae_dit.weights.tensor_file import save_tensors
from support.golden_files import GOLDEN, arrays


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


def save_lpips(directory: Path) -> tuple[Path, Path]:
    """Writes VGG16 by rule, with a classifier that readers leave out, and LPIPS's linear weights.

    Returns:
        Their paths: those of `perceptual.vgg` and `perceptual.linear`.
    """
    abstract = nnx.eval_shape(lambda: LPIPS(rngs=nnx.Rngs(0)))
    here = {path: leaf for path, leaf in parameters_of(abstract).items() if path[:3] == "vgg"}
    tensors = {
        name: by_rule(name, shape) for name, shape in export_shapes(vgg_entries(), here).items()
    }
    vgg, linear = directory / "vgg16.pth", directory / "vgg.pth"
    save_tensors(vgg, tensors | {"classifier.0.weight": np.zeros((2, 2))})
    golden = arrays("lpips")
    save_tensors(linear, {f"lin{n}.model.1.weight": golden[f"lin{n}"] for n in range(5)})
    return vgg, linear
