"""An average that a file holds in a form that is not read is never passed over for the weights."""

import argparse
import collections
import functools

import numpy as np
import pytest
import torch

from rae_dit.weights.errors import WeightsError
from rae_dit.weights.tensor_file import open_tensors

SHAPES = {"embed.proj.weight": (3, 2), "blocks.0.mlp.bias": (2,), "table.weight": (5, 2)}
NAMES = (
    *("ema", "ema_params", "model_ema", "ema_vector", "modelEMA", "averaged", "shadow_weights"),
    *("avg_model", "swa", "polyak_0.999"),
)


def model(value):
    return {name: torch.full(shape, float(value)) for name, shape in SHAPES.items()}


def arrays(value):
    return {name: tensor.numpy() for name, tensor in model(value).items()}


class Helper:
    """As DDIM's: a decay and a dict of tensors."""

    def __init__(self, shadow):
        self.mu = 0.999
        self.shadow = shadow


class Shadows(list):
    """Its tensors are appended to it when it is loaded."""


KINDS = {
    "arrays": arrays(2),
    "a list of arrays": list(arrays(2).values()),
    "a tuple of arrays": tuple(arrays(2).values()),
    "a vector": torch.nn.utils.parameters_to_vector(model(2).values()),
    "an array": np.concatenate([array.ravel() for array in arrays(2).values()]),
    "a storage": torch.ones(18).untyped_storage(),
    "an object": Helper(model(2)),
    "an object with arrays": Helper(arrays(2)),
    "an object in a dict": {"helper": Helper(model(2)), "rate": 0.9},
    "a kind of list": Shadows(model(2).values()),
    "a deque": collections.deque(model(2).values()),
    "bytes": np.ones(18).tobytes(),
    "a bound method": functools.partial(print, model(2)),
    "an array of objects": np.array([model(2), None], dtype=object),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_an_average_in_no_state_dict_is_not_passed_over(kind, protocol, tmp_path, caplog):
    for name in NAMES:
        for content, place in (
            ({"model": model(1), name: KINDS[kind]}, name),
            ({"model": model(1), "x": {name: KINDS[kind], "step": 1}}, f"x.{name}"),
            ({"model": model(1), "x": argparse.Namespace(**{name: KINDS[kind]})}, f"x.{name}"),
        ):
            torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
            with pytest.raises(WeightsError, match=f"a.pt: got '{place}' without a state dict"):
                open_tensors(tmp_path / "a.pt")
            tensors = open_tensors(tmp_path / "a.pt", "online")
            assert {float(number) for tensor in tensors.values() for number in tensor.flat} == {1}
    assert "no EMA is there" not in caplog.text


def test_what_holds_no_weights_is_no_average(tmp_path, caplog):
    others = {
        "ema_decay": np.float32(0.99),
        "ema_rate": torch.tensor(0.99),
        "ema_loss": np.float64(1),
        "avg_loss": np.array(0.5),
        "ema_losses": [np.float64(1), torch.ones(1)],
        "ema_args": argparse.Namespace(decay=0.9, names=["a"]),
        "ema_dtype": np.dtype(np.float32),
        "ema_torch_dtype": torch.bfloat16,
        "ema_update": functools.partial(max, 0.9),
        "averaged": Helper({}),
        "ema_digest": bytes(32),
        "optimizer": {"state": {0: {"square_avg": torch.ones(3, 2)}}},
        "vae": {"embed_avg": torch.ones(2), "ema_w": torch.ones(2)},
    }
    content = {"model": model(1) | {"ema_w": torch.ones(4), "avg.w": torch.ones(99)}, **others}
    for protocol in (2, 5):
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
        assert open_tensors(tmp_path / "a.pt").keys() == content["model"].keys()
    assert "taking 'model' (no EMA is there)" in caplog.text


def discriminator(value):
    shapes = {"main.0.weight": (7, 7), "main.0.bias": (2,), "main.1.weight": (7, 1, 1)}
    return {name: torch.full(shape, float(value)) for name, shape in shapes.items()}


OTHERS = {
    "names": discriminator(9),
    "a list": list(discriminator(9).values()),
    "no dots": {name.replace(".", ""): tensor for name, tensor in discriminator(9).items()},
    "arguments": {"shadow": discriminator(9), "decay": 0.9},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["disc_ema", "ema_disc", "swa_disc"])
def test_the_average_of_another_network_is_not_the_models(kind, name, tmp_path, caplog):
    online = {"model": model(1), "disc": discriminator(9), name: OTHERS[kind]}
    for content, value in ((online, 1), (online | {"ema": model(2)}, 2)):
        torch.save(content, tmp_path / "a.pt")
        tensors = open_tensors(tmp_path / "a.pt")
        assert tensors.keys() == SHAPES.keys()
        assert {float(number) for tensor in tensors.values() for number in tensor.flat} == {value}
        assert f"'{name}" in caplog.text
        assert "is an average of another network" in caplog.text
    assert "no EMA is there" not in caplog.text
    assert "no EMA of it is there" in caplog.text


def test_an_average_of_a_part_or_with_a_prefix_is_the_models(tmp_path):
    part = dict(list(model(2).items())[:1])
    for average in (part, {f"trunk.{name}": tensor for name, tensor in model(2).items()}):
        torch.save({"model": model(1), "ema": average}, tmp_path / "a.pt")
        assert open_tensors(tmp_path / "a.pt").keys() == average.keys()
