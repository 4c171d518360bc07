"""Memory of loading a large file, measured in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from flax import nnx
from support.official_shapes import ddt_shapes

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.ddt import DDT
from rae_dit.weights.official import ddt_buffers
from rae_dit.weights.torch_file import write_torch_file

# argv: file. Prints how many bytes the load added to the peak of the process.
LOAD = """
import resource, sys
import jax
from rae_dit.api import load_ddt
jax.numpy.zeros(1).block_until_ready()
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
load_ddt(sys.argv[1])
print(peak() - before)
"""


def large():
    architecture = DDTArchitecture(
        input_size=4,
        in_channels=16,
        hidden_size=(512, 768),
        depth=(10, 2),
        num_heads=(8, 8),
        num_classes=10,
    )
    return DDT(architecture, Compute(), rngs=nnx.Rngs(0))


def test_loading_needs_little_more_than_the_model(tmp_path):
    abstract = nnx.eval_shape(large)
    buffers = ddt_buffers(abstract)
    numbers = np.random.default_rng(0).standard_normal(4_000_000, np.float32)
    tensors = {
        name: buffers[name] if name in buffers else numbers[: np.prod(shape)].reshape(shape)
        for name, shape in ddt_shapes(abstract).items()
    }
    path = tmp_path / "large.pt"
    write_torch_file(path, tensors)
    size = path.stat().st_size
    assert size > 2e8
    output = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XLA_FLAGS": ""},
        cwd=Path(__file__).parent.parent,
    )
    assert int(output.stdout.split()[-1]) < 1.8 * size
