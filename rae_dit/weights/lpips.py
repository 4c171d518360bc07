"""Weights of LPIPS, from two files: torchvision's VGG16, and the linear weights of LPIPS 0.1.

Both are read by path:

* `vgg16-397923af.pth` (528 MB) from download.pytorch.org/models, or the safetensors of
  `timm/vgg16.tv_in1k` on the Hugging Face hub: the same numbers. Only `features.*` is used.
* `vgg.pth` (7 kB): `lpips/weights/v0.1/vgg.pth` of the PyPI package `lpips`, or the file of this
  name that taming-transformers downloads, which holds VGG's layers as well: the same numbers.
"""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from rae_dit.models.layers import Dtype
from rae_dit.models.lpips import BLOCKS, LPIPS, convolutions
from rae_dit.weights.encoder_names import Renamed
from rae_dit.weights.mapping import Entry, Layout, build, import_tensors, linear, parameters_of
from rae_dit.weights.tensor_file import open_tensors

KERNEL = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
CHANNELS = Layout(lambda x: x[0, :, 0, 0], lambda x: x[None, :, None, None])


def read_lpips(vgg: str | Path, linear: str | Path, *, dtype: Dtype = jnp.float32) -> LPIPS:
    """Reads LPIPS from two files.

    Args:
        vgg: torchvision's VGG16 (.pth or .safetensors).
        linear: the linear weights, `vgg.pth` of LPIPS 0.1.
        dtype: compute dtype of the convolutions.

    Raises:
        FileNotFoundError: a file does not exist.
        WeightsError: a tensor that is needed is missing, misshapen or not finite.
    """
    abstract = nnx.eval_shape(lambda: LPIPS(dtype=dtype, rngs=nnx.Rngs(0)))
    wanted = parameters_of(abstract)
    parameters: dict[str, Array] = {}
    for path, prefix, entries in (
        (vgg, "features.", vgg_entries()),
        (linear, "lin", linear_entries()),
    ):
        tensors = part(open_tensors(path), prefix)
        here = {entry.path: wanted[entry.path] for entry in entries}
        parameters |= import_tensors(entries, tensors, here, what=str(path), fixed={})
    return build(abstract, parameters)


def vgg_entries() -> list[Entry]:
    """Maps VGG16 to torchvision's names: the number of each convolution in `features`."""
    entries: list[Entry] = []
    number, block = 0, "1"
    for name, _ in convolutions():
        if name[4] != block:
            number, block = number + 1, name[4]  # a pooling
        entries += linear(f"vgg.{name}", f"features.{number}", kernel=KERNEL)
        number += 2  # a convolution and its ReLU
    return entries


def linear_entries() -> list[Entry]:
    """Maps the linear weights to the names of LPIPS 0.1: dropout and 1x1 convolution per block."""
    return [
        Entry(f"linear{number + 1}", (f"lin{number}.model.1.weight",), CHANNELS)
        for number in range(len(BLOCKS))
    ]


def part(tensors: Mapping[str, np.ndarray], prefix: str) -> Renamed:
    """Selects the tensors under `prefix`; VGG's classifier is dropped."""
    return Renamed(tensors, {name: name for name in tensors if name.startswith(prefix)})
