r"""Weights that MF-RAE's own student starts from: its teacher's, and a random interval embedding.

    python launch/benchmarks/reference_start.py WORK

Reads the run WORK/dit and writes WORK/reference_start.safetensors, for `ddt.pretrained`.
"""

import dataclasses
import sys
from pathlib import Path

import jax
from flax import nnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rae_dit
from rae_dit.architecture import Compute
from rae_dit.models.ddt import DDT
from rae_dit.models.layers import torch_uniform
from rae_dit.weights.official import export_ddt
from rae_dit.weights.tensor_file import save_tensors


def main(work: Path) -> None:
    """Writes the file."""
    teacher = rae_dit.load_ddt(work / "dit")
    sizes = dataclasses.replace(teacher.architecture, interval_embedding=True)
    student = DDT(sizes, Compute(), rngs=nnx.Rngs(0))
    parameters = nnx.to_pure_dict(nnx.state(student)) | nnx.to_pure_dict(nnx.state(teacher))
    initialize = torch_uniform(sizes.hidden_size[0])
    for layer, key in zip(("kernel", "bias"), jax.random.split(jax.random.key(1)), strict=True):
        shape = parameters["interval_embedding"]["fc2"][layer].shape
        parameters["interval_embedding"]["fc2"][layer] = initialize(key, shape)
    student = nnx.merge(nnx.graphdef(student), parameters)
    save_tensors(work / "reference_start.safetensors", export_ddt(student))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
