"""The DiT^DH of RAEv2 against its golden files: both heads, both directions of its names."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from support.golden_files import GOLDEN, arrays, channels_last

from rae_dit.api import load_ddt
from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.diffusion.prediction import data_of
from rae_dit.models.ddt import DDT
from rae_dit.setup.optim import count_matrices
from rae_dit.weights.mapping import WeightsError, export_shapes, parameters_of
from rae_dit.weights.official import ddt_buffers, ddt_entries, export_ddt
from rae_dit.weights.tensor_file import open_tensors

DIRECTORY = GOLDEN / "raev2"
NAMES = ("dit_default", "dit_repa_equal")


def settings(name):
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def load(name, **keywords):
    base_depth = settings(name)["model"]["base_model_depth"]
    return load_ddt(DIRECTORY / f"{name}.pt", base_depth=base_depth, **keywords)


@pytest.mark.parametrize("name", NAMES)
def test_both_heads(name):
    golden = arrays(f"raev2/{name}")
    x, t = jnp.asarray(channels_last(golden["x"])), jnp.asarray(golden["t"])
    for scan_layers in (True, False):
        graph, state = nnx.split(load(name, scan_layers=scan_layers))

        def outputs(state, graph=graph):
            ddt = nnx.merge(graph, state)
            return ddt.heads(x, t, golden["y"]), ddt(x, t, golden["y"])

        heads, sampled = jax.jit(outputs)(state)
        for velocity, kind in zip(heads, ("full", "base"), strict=True):
            np.testing.assert_allclose(velocity, channels_last(golden[f"v_{kind}"]), atol=2e-4)
            data = data_of(velocity, x, t)
            np.testing.assert_allclose(data, channels_last(golden[f"x_{kind}"]), atol=1e-5)
        np.testing.assert_array_equal(sampled, heads[0])


@pytest.mark.parametrize("name", NAMES)
def test_export_writes_what_was_read(name):
    tensors = open_tensors(DIRECTORY / f"{name}.pt")
    kept = {key for key in tensors if not key.startswith("repa_projector.")}
    exported = export_ddt(load(name))
    assert exported.keys() == kept
    for key in kept - {key for key in kept if "_rope." in key}:
        np.testing.assert_array_equal(exported[key], tensors[key], err_msg=key)


def test_the_published_size_has_its_tensors_and_muon_its_matrices():
    manifest = json.loads((DIRECTORY / "manifest.json").read_text())
    architecture = DDTArchitecture(
        input_size=16,
        in_channels=1024,
        hidden_size=(1440, 2048),
        depth=(28, 2),
        num_heads=(20, 16),
        num_classes=1000,
        use_qknorm=True,
        use_pos_embed=False,
        conditioning="tokens",
        base_depth=8,
        prediction="x",
    )
    ddt = nnx.eval_shape(lambda: DDT(architecture, Compute(), rngs=nnx.Rngs(0)))
    leaves = parameters_of(ddt)
    assert sum(leaf.size for leaf in leaves.values()) == manifest["parameters"]
    entries = ddt_entries(ddt)
    shapes = {name: list(shape) for name, shape in export_shapes(entries, leaves).items()}
    buffers = {name: list(table.shape) for name, table in ddt_buffers(ddt).items()}
    assert shapes | buffers == manifest["dit_imagenet_dinov3l"]

    counts = flatten_dict(count_matrices(ddt), sep=".")
    matrices = [entry for entry in entries if counts[entry.path]]
    assert all(len(entry.keys) == counts[entry.path] for entry in matrices)
    names = {name for entry in matrices for _, keys in entry.parts() for name in keys}
    assert names == set(manifest["muon"])


def test_a_file_with_another_depth_of_the_second_head_is_refused():
    with pytest.raises(WeightsError, match=r"base_depth: got 8; expected 1 to 3"):
        load_ddt(DIRECTORY / "dit_default.pt")
