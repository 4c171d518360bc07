"""The Inception's file: every kind it comes in, and every way in which it can be wrong."""

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import save_file
from support.rule_weights import inception_tensors

from rae_dit.models.inception import InceptionV3
from rae_dit.weights.inception import entries, read_inception
from rae_dit.weights.inception_names import torchvision_name
from rae_dit.weights.mapping import WeightsError, export_shapes, export_tensors, parameters_of


def without_counters(tensors):
    return {name: tensor for name, tensor in tensors.items() if tensor.ndim}


def assert_by_rule(model):
    exported = export_tensors(entries(), parameters_of(model))
    wanted = without_counters(inception_tensors())
    assert exported.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name)


def test_the_file_that_fid_tools_share(tmp_path):
    """It is a torch file from before 1.6, counters included."""
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    tensors = {name: torch.tensor(tensor) for name, tensor in inception_tensors().items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert_by_rule(read_inception(path))


def test_safetensors(tmp_path):
    save_file(without_counters(inception_tensors()), tmp_path / "inception.safetensors")
    assert_by_rule(read_inception(tmp_path / "inception.safetensors"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop("Mixed_7c.branch_pool.bn.running_mean"), r"1 missing \(Mixed_7c.branch"),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), r"1 not known \(extra\)"),
        (
            lambda t: t.update({"fc.weight": np.zeros((1000, 2048), np.float32)}),
            r"1 misshapen \(fc.weight \(1000, 2048\), not \(1008, 2048\)\)",
        ),
        (
            lambda t: t.update({"fc.bias": np.full(1008, np.nan, np.float32)}),
            r"1 not finite \(fc.bias\)",
        ),
    ],
)
def test_another_network_is_refused_by_name(tmp_path, change, problem):
    tensors = without_counters(inception_tensors())
    change(tensors)
    save_file(tensors, tmp_path / "inception.safetensors")
    with pytest.raises(WeightsError, match=problem):
        read_inception(tmp_path / "inception.safetensors")


# One convolution of each block of NVIDIA's file, and ours: from the names of TensorFlow's graph.
NVIDIA = {
    "conv": "Conv2d_1a_3x3",
    "conv_4": "Conv2d_4a_3x3",
    "mixed.tower.conv_1": "Mixed_5b.branch5x5_2",
    "mixed_2.tower_1.conv_2": "Mixed_5d.branch3x3dbl_3",
    "mixed_3.conv": "Mixed_6a.branch3x3",
    "mixed_3.tower.conv": "Mixed_6a.branch3x3dbl_1",
    "mixed_4.tower.conv_2": "Mixed_6b.branch7x7_3",
    "mixed_7.tower_1.conv_4": "Mixed_6e.branch7x7dbl_5",
    "mixed_8.tower.conv_1": "Mixed_7a.branch3x3_2",
    "mixed_8.tower_1.conv_3": "Mixed_7a.branch7x7x3_4",
    "mixed_9.tower_1_mixed_conv": "Mixed_7b.branch3x3dbl_3a",
    "mixed_10.tower.mixed.conv_1": "Mixed_7c.branch3x3_2b",
    "mixed_10.tower_2.conv": "Mixed_7c.branch_pool",
}


@pytest.mark.parametrize(("nvidia", "ours"), NVIDIA.items())
def test_names_of_nvidia_s_file(nvidia, ours):
    assert torchvision_name(f"layers.{nvidia}.conv.weight") == f"{ours}.conv.weight"
    assert torchvision_name(f"layers.{nvidia}.weight") == f"{ours}.conv.weight"
    assert torchvision_name(f"layers.{nvidia}.beta") == f"{ours}.bn.bias"
    assert torchvision_name(f"layers.{nvidia}.bn.running_var") == f"{ours}.bn.running_var"


def nvidia_names():
    """Every tensor's name in NVIDIA's file -> ours; scales are left out."""
    tensors = without_counters(inception_tensors())
    towers = ("", "tower.", "tower_1.", "tower_2.", "tower.mixed.", "tower_1.mixed.")
    blocks = ["", *(f"mixed{suffix}." for suffix in ["", *(f"_{n}" for n in range(1, 11))])]
    places = [
        f"layers.{block}{tower}conv{suffix}"
        for block in blocks
        for tower in (towers if block else ("",))
        for suffix in ("", "_1", "_2", "_3", "_4")
    ]
    leaves = ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    names = [f"{place}.{leaf}" for place in places for leaf in leaves]
    found = {name: torchvision_name(name) for name in [*names, "output.weight", "output.bias"]}
    found = {name: ours for name, ours in found.items() if ours}
    assert sorted(found.values()) == sorted(n for n in tensors if not n.endswith("bn.weight"))
    return found


def module_of(tensors):
    """A module with these tensors as buffers, in a tree by their names."""
    module, heads = torch.nn.Module(), {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        heads.setdefault(head, {})[rest] = tensor
    for head, inner in heads.items():
        if "" in inner:
            module.register_buffer(head, torch.tensor(inner[""]))
        else:
            module.add_module(head, module_of(inner))
    return module


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_torchscript_file_of_nvidia(tmp_path):
    tensors = inception_tensors()
    names = nvidia_names()
    module = module_of({name: tensors[ours] for name, ours in names.items()})
    torch.jit.save(torch.jit.script(module), tmp_path / "inception-2015-12-05.pt")
    model = read_inception(tmp_path / "inception-2015-12-05.pt")
    exported = export_tensors(entries(), parameters_of(model))
    for name, tensor in exported.items():
        wanted = np.ones_like(tensor) if name.endswith("bn.weight") else tensors[name]
        np.testing.assert_array_equal(tensor, wanted, err_msg=name)


def test_other_names_below_layers_are_one_line(tmp_path):
    save_file({"layers.0.weight": np.ones(3, np.float32)}, tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=r"named layers.0.weight; expected .*NVIDIA"):
        read_inception(tmp_path / "vit.safetensors")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(WeightsError, match=r"got no file; expected .*docs/evaluation.md") as caught:
        read_inception(tmp_path / "nowhere.pth")
    assert "\n" not in str(caught.value)


def test_names_are_those_of_the_manifest():
    shapes = export_shapes(entries(), parameters_of(nnx.eval_shape(InceptionV3)))
    wanted = {name: tensor.shape for name, tensor in without_counters(inception_tensors()).items()}
    assert shapes == wanted
