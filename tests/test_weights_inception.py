"""The Inception's file: every kind it comes in, and every way in which it can be wrong."""

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import save_file
from support.rule_weights import inception_tensors

from rae_dit.models.inception import InceptionV3
from rae_dit.weights.inception import entries, read_inception
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


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(WeightsError, match=r"There is no file .*docs/evaluation.md") as caught:
        read_inception(tmp_path / "nowhere.pth")
    assert "\n" not in str(caught.value)


def test_names_are_those_of_the_manifest():
    shapes = export_shapes(entries(), parameters_of(nnx.eval_shape(InceptionV3)))
    wanted = {name: tensor.shape for name, tensor in without_counters(inception_tensors()).items()}
    assert shapes == wanted
