"""Which weights of a training checkpoint are taken: every common name of an EMA, and no guess."""

import random
import types

import numpy as np
import pytest
import torch

from rae_dit.weights.averages import match_in_order
from rae_dit.weights.branch_names import is_average
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.tensor_file import open_tensors, save_tensors

NAMES = ("embed.proj.weight", "blocks.0.mlp.bias", "pos_embed", "table.weight")


def model(value, prefix=""):
    shapes = ((3, 2), (2,), (1, 4, 2), (5, 2))
    pairs = zip(NAMES, shapes, strict=True)
    return {f"{prefix}{name}": torch.full(shape, float(value)) for name, shape in pairs}


def undotted(value):
    return {name.replace(".", ""): tensor for name, tensor in model(value).items()}


def listed(value):
    return list(model(value).values())


# The EMA is 2, the online weights 1, other averages and other models 9.
BOTH = {
    "ema": {"model": model(1), "ema": model(2), "opt": {"state": {0: model(9)}}, "epoch": 3},
    "ema_state_dict": {"model": model(1), "ema_state_dict": model(2)},
    "timm": {"state_dict": model(1), "state_dict_ema": model(2, "module."), "arch": "x"},
    "model_ema": {"model_ema": model(2), "model": model(1)},
    "ema_model": {"model_state_dict": model(1), "ema_model": model(2, "_orig_mod.")},
    "basicsr": {"params": model(1), "params_ema": model(2)},
    "styleGAN": {"net": model(1), "net_ema": model(2)},
    "a rate in the key": {"model": model(1), "ema_0.9999": model(2)},
    "lightning": {"state_dict": model(1, "model.") | model(2, "ema.") | model(9, "loss.")},
    "lightning, net": {"state_dict": model(1, "net.") | model(2, "ema_net."), "epoch": 1},
    "a flat file": model(1, "model.") | model(2, "model_ema."),
    "beside names without prefix": model(1) | model(2, "ema."),
    "ema_pytorch": {
        "model": model(1),
        "ema": {"initted": torch.ones(1), "step": torch.ones(1)}
        | model(9, "online_model.")
        | model(2, "ema_model."),
    },
    "module and counter": {"model": model(1), "model_ema": {"module": model(2), "num_updates": 5}},
    "a shadow": {"model": model(1), "ema": {"decay": 0.99, "shadow": model(2)}},
    "AveragedModel": {
        "model": model(1),
        "ema_model": {"n_averaged": torch.tensor(3)} | model(2, "module._orig_mod."),
    },
    "LitEma": {
        "state_dict": model(1, "model.")
        | {f"model_ema.{name}": tensor for name, tensor in undotted(2).items()}
        | {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}
    },
    "shadow_params": {"model": model(1), "ema": {"decay": 0.9, "shadow_params": listed(2)}},
    "a list": {"state_dict": model(1, "module."), "ema": listed(2)},
    "one for each rate": {"model": model(1), "ema": {"0.9999": model(2), "0.9995": model(9)}},
    "rates as numbers": {"model": model(1), "ema": {0.999: model(9), 0.9999: model(2)}},
    "rates beside": {
        "model": model(1),
        "ema": [model(9), model(2)],
        "ema_rates": [0.999, 0.9999],
    },
    **{
        f"one word: {key}": {"model": model(1), key: model(2)}
        for key in ("modelEMA", "emaModel", "EMAModel", "ModelEma", "modelema", "emanet", "EMA_net")
    },
    **{
        f"another word: {key}": {"state_dict": model(1), key: model(2, "module.")}
        for key in ("averaged_model_state_dict", "avg_model", "model_averaged", "swa_model")
    },
    "polyak": {"model": model(1), "polyak": model(2), "optimizer": {"exp_avg": model(9)}},
    "flat, one word": model(1, "model.") | model(2, "modelEMA."),
    "flat, another word": model(1, "net.") | model(2, "avg.") | model(9, "loss."),
    "flat, beside names without prefix": model(1) | model(2, "swa_model."),
    "Lightning's WeightAveraging": {
        "state_dict": model(2),
        "current_model_state": model(1),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
    "a callback of Lightning": {
        "state_dict": model(1),
        "callbacks": {"EMACallback": {"ema_state_dict": model(2)}, "Best": {"score": 1.0}},
    },
    "wrappers inside": {
        "model": {
            f"_fsdp_wrapped_module.trunk._checkpoint_wrapped_module.{name}": tensor
            for name, tensor in model(1).items()
        },
        "ema": {f"trunk.{name}": tensor for name, tensor in model(2, "ddp.").items()},
    },
}


def value_of(path, weights):
    tensors = open_tensors(path, weights)
    assert {name.removeprefix("trunk.") for name in tensors} == set(NAMES)
    (value,) = {float(value) for tensor in tensors.values() for value in tensor.flat}
    return value


@pytest.mark.parametrize("case", BOTH)
def test_the_ema_is_taken_and_said_and_the_online_weights_can_be_had(case, tmp_path, caplog):
    torch.save(BOTH[case], tmp_path / "a.pt")
    assert value_of(tmp_path / "a.pt", "ema") == 2
    assert "taking" in caplog.text
    assert "the EMA" in caplog.text or "an average of the weights" in caplog.text
    assert value_of(tmp_path / "a.pt", "online") == 1
    assert "the online weights" in caplog.text


def test_what_is_left_out_is_listed(tmp_path, caplog):
    torch.save(BOTH["timm"], tmp_path / "a.pt")
    open_tensors(tmp_path / "a.pt")
    assert caplog.messages == [
        f"{tmp_path}/a.pt: taking 'state_dict_ema' (the EMA); left out: state_dict, arch"
    ]


def test_flat_files_are_chosen_from_too(tmp_path):
    for name in ("a.safetensors", "a.npz"):
        arrays = {name: tensor.numpy() for name, tensor in BOTH["a flat file"].items()}
        if name.endswith("npz"):
            np.savez(tmp_path / name, **arrays)
        else:
            save_tensors(tmp_path / name, arrays)
        assert value_of(tmp_path / name, "ema") == 2
        assert value_of(tmp_path / name, "online") == 1


def test_a_file_without_ema_gives_what_it_has(tmp_path, caplog):
    counted = {"n_averaged": torch.tensor(3)} | model(1, "module.")
    for content in (model(1), model(1, "module._orig_mod."), model(1, "model.net."), counted):
        torch.save(content, tmp_path / "a.pt")
        assert value_of(tmp_path / "a.pt", "ema") == 1
    assert not caplog.text
    torch.save({"state_dict": model(1), "ema_decay": 0.9, "ema": None}, tmp_path / "a.pt")
    assert value_of(tmp_path / "a.pt", "ema") == 1
    assert "taking 'state_dict' (no EMA is there); left out: ema, ema_decay" in caplog.text


UNCLEAR = {
    "two without rates": ({"model": model(1), "ema": [model(2), model(9)]}, "got 2 averages (ema["),
    "a list of another model": ({"model": model(1), "ema": listed(2)[1:] + listed(2)[:1]}, "order"),
    "a list alone": ({"ema": listed(2)}, "got 4 tensors without the model's names in 'ema'"),
    "a list with two answers": (
        {"model": {"a.w": torch.ones(2), "b.w": torch.ones(2)}, "ema": [torch.ones(2)]},
        "which the online weights do not settle",
    ),
    "names of another model": (
        {"model": model(1), "ema": {"oddweight": torch.ones(2)}},
        "got 1 tensors without the model's names",
    ),
}


ALIKE = "with the same names and shapes, and none that is named as an EMA; expected one; "
LOOKALIKES = {
    "teacher": ({"model": model(1), "teacher": model(9)}, "'model', 'teacher'"),
    "inside": ({"model": model(1), "best": {"weights": model(9)}}, "'model', 'best.weights'"),
    "wrapped": ({"net": model(1), "target": model(9, "module.")}, "'net', 'target'"),
    "flat": (model(1, "model.") | model(9, "teacher."), "'model.*', 'teacher'"),
    "without buffers": (
        {"model": model(1), "slow": dict(list(model(9).items())[:2])},
        "'model', 'slow'",
    ),
    "a list": ({"model": model(1), "slow": listed(9)}, "'model', 'slow'"),
}


@pytest.mark.parametrize("case", LOOKALIKES)
def test_tensors_that_could_be_the_average_are_not_passed_over(case, tmp_path):
    content, names = LOOKALIKES[case]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError) as caught:
        open_tensors(tmp_path / "a.pt")
    assert f"got {names} {ALIKE}weights='online' takes" in str(caught.value)
    assert value_of(tmp_path / "a.pt", "online") == 1


def test_what_cannot_be_an_average_is_left_out(tmp_path, caplog):
    others = {
        "optimizer": {"state": {0: {"exp_avg": model(9)["pos_embed"]}}, "exp_avg": model(9)},
        "disc": model(9, "disc."),
        "backup": model(9),
        "hyper_parameters": {"ema": types.SimpleNamespace(decay=0.9)},
    }
    flat = model(1) | {"avg_pool.weight": torch.ones(2), "swa.weight": torch.ones(2)}
    torch.save({"model": model(1)} | {**others, "disc": {"w": torch.ones(2)}}, tmp_path / "a.pt")
    assert value_of(tmp_path / "a.pt", "ema") == 1
    assert "(no EMA is there)" in caplog.text
    torch.save(flat, tmp_path / "a.pt")
    assert open_tensors(tmp_path / "a.pt").keys() == flat.keys()


def test_an_average_in_the_optimizer_is_not_passed_over(tmp_path):
    content = {"state_dict": model(1), "optimizer_states": [{"opt": {}, "ema": listed(2)}]}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"got 'optimizer_states\.0\.ema' without a state dict"):
        open_tensors(tmp_path / "a.pt")
    assert value_of(tmp_path / "a.pt", "online") == 1


@pytest.mark.parametrize("case", UNCLEAR)
def test_an_ema_that_is_not_clear_is_refused(case, tmp_path):
    content, message = UNCLEAR[case]
    torch.save(content, tmp_path / "a.pt")
    if message == "order":
        message = "which the online weights do not settle"
    with pytest.raises(WeightsError) as caught:
        open_tensors(tmp_path / "a.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if "model" in content:
        assert len(open_tensors(tmp_path / "a.pt", "online")) == len(content["model"])


def test_weights_that_are_not_there_are_refused(tmp_path):
    torch.save({"ema": model(2)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="weights: got 'online'; expected 'ema', all that"):
        open_tensors(tmp_path / "a.pt", "online")
    with pytest.raises(WeightsError, match="weights: got 'raw'; expected 'ema' or 'online'"):
        open_tensors(tmp_path / "a.pt", "raw")
    torch.save(model(1) | model(2, "module."), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"got a second 'embed\.proj\.weight' without the names"):
        open_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "key", ["schema", "cinema.w", "emalgam", "ema2x", "exp_avg", "avgpool", "0.99"]
)
def test_other_names_are_no_average(key):
    assert not is_average(key, inside=False)


def test_a_list_is_named_as_its_maker_would_have():
    rng = random.Random(0)
    settled = 0
    for _ in range(300):
        names = [f"layer.{number}" for number in range(rng.randint(1, 8))]
        tensors = {name: np.empty(rng.choice([(1,), (2,), (3, 2), (4,)])) for name in names}
        trained = [name for name in names if rng.random() < 0.8]
        found = match_in_order([tensors[name] for name in trained], tensors)
        if found is not None:
            assert {name: id(tensor) for name, tensor in found.items()} == {
                name: id(tensors[name]) for name in trained
            }
            settled += 1
    assert settled > 100
