"""Torch files from before 1.6: read as torch reads them, and never run."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.tensor_file import open_tensors
from rae_dit.weights.torch_legacy import is_legacy


def save(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    whole = torch.randn(4, 6)
    return OrderedDict(
        weight=whole,
        transposed=whole.T,  # shares the storage
        part=whole[1:3, ::2],
        half=torch.randn(5).half(),
        count=torch.tensor(7),
        parameter=torch.nn.Parameter(torch.randn(3)),
    )


def test_all_tensors_are_torch_s(tmp_path, tensors):
    path = save(tmp_path / "old.pth", tensors)
    assert is_legacy(path)
    found = open_tensors(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())
        assert found[name].dtype == tensor.detach().numpy().dtype


def test_a_training_checkpoint_gives_its_ema(tmp_path, tensors):
    plain = {"weight": tensors["weight"]}
    path = save(
        tmp_path / "old.pth", {"epoch": 3, "model": {"weight": -tensors["weight"]}, "ema": plain}
    )
    np.testing.assert_array_equal(open_tensors(path)["weight"], tensors["weight"].numpy())


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_cut_file_is_refused(tmp_path, tensors, kept):
    path = save(tmp_path / "old.pth", tensors)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match="damaged"):
        open_tensors(path)


def test_a_wrong_number_of_elements_is_refused(tmp_path):
    path = save(tmp_path / "old.pth", {"weight": torch.arange(5.0)})
    content = bytearray(path.read_bytes())
    place = len(content) - 5 * 4 - 8
    assert content[place] == 5
    content[place] = 4
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"storage .* has 4 numbers and should have 5"):
        open_tensors(path)["weight"]


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)


def test_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "old.pth", {"weight": torch.zeros(2)})
    pieces = [pickle.dumps(x, protocol=2) for x in (0x1950A86A20F9469CFC6C, 1001, Bomb())]
    path.write_bytes(b"".join(pieces))
    with pytest.raises(WeightsError, match=r"old.pth is damaged"):
        open_tensors(path)
    assert not (tmp_path / "bomb").exists()
