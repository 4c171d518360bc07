"""Training checkpoints as trainers write them: tensors are read, the rest are placeholders."""

import argparse
import collections
import enum
import functools
import pathlib
import random
import sys
import types

import numpy as np
import pytest
import torch

from rae_dit.weights.errors import WeightsError
from rae_dit.weights.safe_pickle import Placeholder
from rae_dit.weights.tensor_file import open_tensors
from rae_dit.weights.torch_file import read_torch_file

FORMATS = [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}]
FORMAT_NAMES = ["zip", "protocol 4", "before 1.6"]


class Phase(enum.Enum):
    FIRST = 1


def weight(value):
    return {"w": torch.full((2,), float(value))}


ABSENT = ("omegaconf.dictconfig.DictConfig", "sit.transport.Transport", "hydra.conf.Job")


@pytest.fixture
def gone(monkeypatch):
    """Classes of omegaconf, of a trainer and of hydra, in modules that are gone after the save."""
    made = {}
    for name in ABSENT:
        module, _, short = name.rpartition(".")
        made[short] = type(short, (dict,), {"__module__": module})
        for package in (module.partition(".")[0], module):
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        setattr(sys.modules[module], short, made[short])
    return made


def extras(gone):
    config = gone["DictConfig"](a=1)
    config._metadata = {"parent": config}  # omegaconf's nodes know their parents
    return {
        "args": argparse.Namespace(model="DiT-XL/2", global_seed=0, out=pathlib.Path("/tmp")),
        "hyper_parameters": {
            "optimizer": functools.partial(torch.optim.AdamW, lr=1e-4),
            "config": config,
            "job": gone["Job"](),
        },
        "callbacks": {Phase: {"best": Phase.FIRST}, (1, ("a", 2)): 3},
        "numpy_rng": np.random.RandomState(0).get_state(),
        "generator": np.random.default_rng(0),
        "python_rng": random.Random(0).getstate(),
        "torch_rng": torch.get_rng_state(),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "scalar": np.float64(0.5),
        "array": np.arange(3),
        "history": collections.deque([1.0], maxlen=5),
        "counts": collections.Counter("aab"),
        "by_name": collections.defaultdict(list, a=[1]),
        "seen": {1, 2},
        "frozen": frozenset({1}),
        "transport": gone["Transport"](),
        "slice": slice(1, 2),
        "complex": 1j,
        "bytes": bytearray(b"abc"),
        "large": 1 << 100,
    }


@pytest.mark.parametrize("keywords", FORMATS, ids=FORMAT_NAMES)
def test_tensors_beside_anything_else_are_read(tmp_path, gone, keywords):
    content = {"model": weight(1), "ema": weight(2), "opt": weight(3), **extras(gone)}
    torch.save(content, tmp_path / "a.pt", **keywords)
    modules = {name.rpartition(".")[0] for name in ABSENT}
    for module in modules:
        del sys.modules[module]
    np.testing.assert_array_equal(open_tensors(tmp_path / "a.pt")["w"], [2, 2])
    assert not modules & sys.modules.keys()
    assert open_content(tmp_path / "a.pt")["args"].state["model"] == "DiT-XL/2"


def open_content(path):
    from rae_dit.weights.torch_legacy import is_legacy, read_legacy

    return read_legacy(path) if is_legacy(path) else read_torch_file(path)


def trained():
    """A model after a step, its average (all ones), and its optimizer."""
    model = torch.nn.Linear(2, 3)
    average = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, average, optimizer


def checkpoint_of_dit(gone):
    model, average, optimizer = trained()
    args = argparse.Namespace(model="DiT-XL/2", results_dir=pathlib.Path("results"), num_classes=10)
    content = {"model": model.state_dict(), "ema": average, "opt": optimizer.state_dict()}
    return content | {"args": args}


def checkpoint_of_repa(gone):
    """Of a model inside DataParallel; the projector's name is in the arguments."""
    content = checkpoint_of_dit(gone)
    content["model"] = {f"module.{name}": tensor for name, tensor in content["model"].items()}
    return content | {"steps": 10_000, "args": argparse.Namespace(enc_type="dinov2-vit-b")}


def checkpoint_of_lightningdit(gone):
    config = gone["DictConfig"](data={"image_size": 256})
    return checkpoint_of_dit(gone) | {"config": config, "scheduler": gone["Transport"]()}


def checkpoint_of_lightning_hydra(gone):
    """Of Lightning's Trainer with a module that saves its arguments, and an average beside it."""
    model, average, optimizer = trained()
    names = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": names | {f"ema_net.{name}": tensor for name, tensor in average.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/loss'}": {"best_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "net": gone["Transport"](),
            "optimizer": functools.partial(torch.optim.AdamW, lr=1e-4),
            "scheduler": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1),
            "root": pathlib.Path("data"),
            "config": gone["DictConfig"](a=1),
        },
    }


TRAINERS = [
    checkpoint_of_dit,
    checkpoint_of_repa,
    checkpoint_of_lightningdit,
    checkpoint_of_lightning_hydra,
]


@pytest.mark.parametrize("checkpoint", TRAINERS)
def test_checkpoints_of_trainers_open(tmp_path, gone, checkpoint):
    torch.save(checkpoint(gone), tmp_path / "a.ckpt")
    for name in ABSENT:
        del sys.modules[name.rpartition(".")[0]]
    tensors = open_tensors(tmp_path / "a.ckpt")
    assert sorted(tensors) == ["bias", "weight"]
    np.testing.assert_array_equal(tensors["weight"], np.ones((3, 2)))


def test_kinds_of_dict_are_dicts(tmp_path):
    content = {"state_dict": collections.defaultdict(list, weight(1)), "step": 3}
    torch.save(collections.OrderedDict(content), tmp_path / "a.pt")
    np.testing.assert_array_equal(open_tensors(tmp_path / "a.pt")["w"], [1, 1])


def test_tensors_that_carry_attributes_are_tensors(tmp_path):
    parameter, plain = torch.nn.Parameter(torch.ones(2)), torch.zeros(2)
    parameter.decay = plain.name_there = "x"
    torch.save({"parameter": parameter, "plain": plain}, tmp_path / "a.pt")
    tensors = open_tensors(tmp_path / "a.pt")
    np.testing.assert_array_equal(tensors["parameter"], [1, 1])
    np.testing.assert_array_equal(tensors["plain"], [0, 0])


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).eval()


def save_script(path):
    torch.jit.save(torch.jit.script(network()), path)


def save_module(path):
    torch.save(network(), path)


def save_module_beside_others(path):
    torch.save({"epoch": 3, "model": network()}, path)


@pytest.mark.parametrize("save", [save_script, save_module, save_module_beside_others])
def test_whole_modules_give_their_state_dict(tmp_path, save):
    save(tmp_path / "a.pt")
    tensors = open_tensors(tmp_path / "a.pt")
    expected = network().state_dict()
    assert sorted(tensors) == sorted(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


@pytest.fixture
def mesh(monkeypatch):
    """One process that believes in two, which is all that sharding a tensor needs here."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield distributed.device_mesh.init_device_mesh("cpu", (2,))
    distributed.destroy_process_group()


def test_shards_of_tensors_are_refused_and_whole_ones_read(tmp_path, mesh):
    from torch.distributed.tensor import DTensor, Replicate, Shard

    whole = torch.arange(4.0).reshape(2, 2)
    content = {
        "same": DTensor.from_local(whole, mesh, [Replicate()], run_check=False),
        "part": DTensor.from_local(whole, mesh, [Shard(0)], run_check=False),
    }
    torch.save(content, tmp_path / "a.pt")
    tensors = open_tensors(tmp_path / "a.pt")
    np.testing.assert_array_equal(tensors["same"], whole.numpy())
    with pytest.raises(WeightsError, match=r"\(2, 2\) of \(4, 2\); save whole.*full_state_dict"):
        tensors["part"]


def test_placeholders_say_what_they_stand_for(tmp_path):
    torch.save({"path": pathlib.Path("a") / "b", "w": torch.ones(1)}, tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt")["path"]
    assert type(found) is Placeholder
    assert (found.name, found.arguments) == ("pathlib.PosixPath", ("a", "b"))
