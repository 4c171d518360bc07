"""Finding the state dict in a file."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.tensor_file import open_tensors, save_tensors


def saved(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def values(path):
    return {name: float(tensor[0]) for name, tensor in open_tensors(path).items()}


def one(value):
    return torch.full((2,), float(value))


def test_a_plain_state_dict_is_taken_as_it_is(tmp_path):
    path = saved(tmp_path, OrderedDict({"blocks.0.weight": one(1), "pos_embed": one(2)}))
    assert values(path) == {"blocks.0.weight": 1, "pos_embed": 2}


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"model": {"w": 1}}])
def test_a_file_without_state_dict_is_refused(tmp_path, content):
    with pytest.raises(WeightsError, match=r"a\.pt: got .*; expected a state dict of"):
        open_tensors(saved(tmp_path, content))


def test_safetensors_are_told_by_content_and_joined_from_shards(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "1.pt")  # the name does not matter
    save_file({"b": np.zeros(2, np.float32)}, tmp_path / "2.safetensors")
    assert values(tmp_path / "1.pt") == {"a": 1}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.pt", "b": "2.safetensors"}}))
    assert values(index) == {"a": 1, "b": 0}
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"2\.safetensors is not a whole safetensors file"):
        open_tensors(index)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    save_file({"a": np.ones(200, np.float32)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-8])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        open_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_saved_is_read_back_bit_for_bit(tmp_path, suffix):
    tensors = {"w": np.random.default_rng(0).standard_normal((3, 5)).astype("f").T}
    save_tensors(tmp_path / f"a{suffix}", tensors)
    np.testing.assert_array_equal(open_tensors(tmp_path / f"a{suffix}")["w"], tensors["w"])


def test_other_suffixes_are_not_written(tmp_path):
    with pytest.raises(WeightsError, match=r"\.npz"):
        save_tensors(tmp_path / "a.npz", {})
