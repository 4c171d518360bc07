"""Config: every file in configs/ converts; every mistake is one line that helps."""

import dataclasses
import importlib
import json
import os
import pathlib
from typing import Any

import ml_collections
import pytest

from rae_dit.config import (
    Config,
    ConfigError,
    check_devices,
    describe_field,
    from_config_dict,
    parse_labels,
    to_dict,
)

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def values_of(name: str) -> ml_collections.ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config()


def leaves(section: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in section.items():
        below = f"{path}{name}"
        found |= leaves(value, f"{below}.") if isinstance(value, dict) else {below: value}
    return found


def refused(changes: dict[str, Any], *, removed: tuple[str, str] | None = None) -> str:
    """The message for the reference config with `changes` by dotted path."""
    values = values_of("default").to_dict()
    for path, value in changes.items():
        *sections, name = path.split(".")
        holder = values
        for section in sections:
            holder = holder[section]
        holder[name] = value
    if removed:
        del values[removed[0]][removed[1]]
    with pytest.raises(ConfigError) as caught:
        from_config_dict(ml_collections.ConfigDict(values))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NAMES)
def test_every_config_file_converts_and_round_trips(name: str) -> None:
    config = from_config_dict(values_of(name))
    written = json.loads(json.dumps(to_dict(config)))
    assert written == to_dict(config)
    assert from_config_dict(ml_collections.ConfigDict(written)) == config


@pytest.mark.parametrize("name", NAMES)
def test_every_config_file_writes_values_in_their_declared_type(name: str) -> None:
    # An int in a float's place would make ml_collections refuse '--config.that.field=0.5'.
    values = values_of(name)
    home = os.path.expanduser("~")
    converted = dataclasses.asdict(from_config_dict(values))
    assert {path: repr(value) for path, value in leaves(values.to_dict()).items()} == {
        path: repr(value).replace(f"'{home}/", "'~/") for path, value in leaves(converted).items()
    }


def test_the_folder_is_not_empty() -> None:
    assert {"default", "dit_dino", "dit_digits", "dit_dummy"} <= set(NAMES)


@pytest.mark.parametrize("name", ["default", "dit_dino"])  # the second repeats the first
def test_reference_recipe(name: str) -> None:
    config = from_config_dict(values_of(name))
    optim = config.optim
    assert (optim.learning_rate, optim.final_learning_rate, optim.clip_norm) == (2e-4, 2e-5, 1.0)
    assert (optim.warmup_steps, optim.decay_end_step) == (50_040, 1_000_800)
    assert (config.data.batch_size, config.ema.decay) == (1024, 0.9995)
    assert (config.ddt.hidden_size, config.ddt.depth) == ((1152, 2048), (28, 2))


def test_configs_are_frozen() -> None:
    config = from_config_dict(values_of("default"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.data.flip = False  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.evaluate.num_samples = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        # unknown field: the value, and the nearest name
        ("optim.learning_rat", 1, ["optim.learning_rat: got 1;", "did you mean optim.learning_ra"]),
        ("learning_rate", 0.1, ["learning_rate: got 0.1;", " optim.learning_rate"]),
        ("optm", {"beta1": 0.9}, ["optm: got a section;", "did you mean optim?"]),
        ("ema.qqq", 1, ["ema.qqq: got 1;", "the fields are decay"]),
        # wrong type
        ("optim.max_steps", "abc", ["optim.max_steps: got 'abc';", "an int >= 1"]),
        ("optim.max_steps", True, ["optim.max_steps: got True;", "an int >= 1"]),
        ("optim.max_steps", 10.0, ["optim.max_steps: got 10.0;", "an int >= 1"]),
        ("optim.max_steps", None, ["optim.max_steps: got None;", "an int >= 1"]),
        ("optim.max_steps", {"a": 1}, ["optim.max_steps: got a section;", "an int >= 1"]),
        ("optim.learning_rate", True, ["optim.learning_rate: got True;", "float > 0"]),
        ("optim.learning_rate", float("nan"), ["optim.learning_rate: got nan;", "finite float"]),
        ("optim.clip_norm", float("inf"), ["optim.clip_norm: got inf;", "finite float"]),
        ("data.flip", 1, ["data.flip: got 1;", "True or False"]),
        ("encoder.pretrained", 5, ["encoder.pretrained: got 5;", "a string"]),
        ("optim", 3, ["optim: got 3;", "a section with the fields name, learning_rate,"]),
        ("flow.shift", "x", ["flow.shift: got 'x';", "float > 0 or None"]),
        ("ddt.depth", 28, ["ddt.depth: got 28;", "a tuple of 2 elements, each an int >= 1"]),
        ("ddt.depth", (28,), ["ddt.depth: got (28,);", "a tuple of 2 elements"]),
        ("ddt.depth", (28, 2.0), ["ddt.depth[1]: got 2.0;", "an int >= 1"]),
        # unknown choice
        (
            "optim.decay",
            "cosin",
            ["optim.decay: got 'cosin';", "'linear'", "did you mean 'cosine'?"],
        ),
        ("data.source", "imagenet", ["data.source: got 'imagenet';", "one of 'digits',"]),
        # impossible value
        ("optim.max_steps", 0, ["optim.max_steps: got 0;", "an int >= 1"]),
        ("optim.warmup_steps", -1, ["optim.warmup_steps: got -1;", "an int >= 0"]),
        ("optim.learning_rate", 0.0, ["optim.learning_rate: got 0.0;", "float > 0"]),
        ("optim.beta1", 1.0, ["optim.beta1: got 1.0;", "float in [0, 1)"]),
        ("ddt.class_dropout", 1.5, ["ddt.class_dropout: got 1.5;", "float in [0, 1]"]),
        ("seed", 2**32, ["seed: got 4294967296;", "an int in [0, 4294967295]"]),
        ("checkpoint.keep_every", 0, ["checkpoint.keep_every: got 0;", "an int >= 1 or None"]),
    ],
)
def test_one_field(path: str, value: Any, parts: list[str]) -> None:
    message = refused({path: value})
    assert message.startswith(parts[0])
    assert all(part in message for part in parts[1:]), message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"ddt.hidden_size": (1024, 2048), "ddt.num_heads": (12, 16)},
            ["ddt.hidden_size[0] = 1024 is not divisible by ddt.num_heads[0] = 12; use 8 or 16"],
        ),
        ({"ddt.num_heads": (16, 1024)}, ["ddt.num_heads[1] = 1024", "heads of 2", "use 512 heads"]),
        ({"ddt.hidden_size": (1154, 2048), "ddt.use_rope": False, "ddt.num_heads": (2, 16)},
         ["ddt.hidden_size[0]: got 1154", "multiple of 4"]),
        ({"ddt.hidden_size": (1154, 2048)}, ["ddt.hidden_size[0]: got 1154", "multiple of 4"]),
        ({"encoder.num_heads": 7}, ["encoder.hidden_size = 768", "num_heads = 7; use 6 or 8"]),
        ({"decoder.num_heads": 5}, ["decoder.hidden_size = 1152", "num_heads = 5; use 4 or 6"]),
        ({"decoder.hidden_size": 18, "decoder.num_heads": 1}, ["decoder.hidden_size: got 18"]),
        ({"encoder.input_size": 225}, ["encoder.input_size: got 225", "patch_size = 14"]),
        (
            {"sample.guidance": "internal", "ddt.base_depth": 1, "sample.internal_null_scale": 1.1},
            ["sample.internal_null_scale: got 1.1; expected None because", "for 'cfg'"],
        ),
        ({"flow.base_weight": 0.5}, ["flow.base_weight: got 0.5; expected 1 because", "no second"]),
        ({"sample.guidance": "internal"}, ["ddt.base_depth: got 0", "a second head"]),
        ({"encoder.family": "mae"}, ["encoder.num_registers: got 4", "0 for 'mae'"]),
        ({"encoder.checkpoint": "runs/a"}, ["encoder.checkpoint: got 'runs/a'", "one of the two"]),
        ({"decoder.checkpoint": "runs/a"}, ["decoder.checkpoint: got 'runs/a'", "one of the two"]),
        ({"ddt.patch_size": 3}, ["ddt.patch_size: got 3", "16 latent cells per side"]),
        ({"data.image_size": 512}, ["data.image_size: got 512", "expected 256 = decoder.patch"]),
        ({"decoder.patch_size": 14}, ["data.image_size: got 256", "expected 224"]),
        ({"data.source": "digits", "data.image_size": 12}, ["data.image_size: got 12", "8 for"]),
        ({"data.source": "digits"}, ["data.num_classes: got 1000", "10 for 'digits'"]),
        ({"data.path": "/x"}, ["data.path: got '/x'", "'synthetic' reads no files"]),
        ({"optim.accumulate_steps": 3}, ["data.batch_size: got 1024", "accumulate_steps = 3"]),
        ({"optim.decay_end_step": 50_040}, ["optim.decay_end_step: got 50040", "more than"]),
        ({"optim.final_learning_rate": 1.0}, ["optim.final_learning_rate: got 1.0", "at most"]),
        ({"checkpoint.keep_every": 7}, ["checkpoint.keep_every: got 7", "save_every = 12510"]),
        ({"checkpoint.best_metric": "speed/mfu"}, ["checkpoint.best_metric: got", "val_ema/loss"]),
        (
            {"checkpoint.best_metric": "train/replaced_images"},
            ["checkpoint.best_metric: got", "each process measures"],
        ),
        ({"sample.cfg_interval": (0.5, 0.1)}, ["sample.cfg_interval: got (0.5, 0.1)", "low <= hi"]),
        ({"sample.num_steps": 1}, ["sample.num_steps: got 1", ">= 2"]),
        ({"sample.labels": "0,1000"}, ["sample.labels: got '0,1000'", "[0, 999]", "'0-9'"]),
    ],
)  # fmt: skip
def test_fields_that_must_agree(changes: dict[str, Any], parts: list[str]) -> None:
    message = refused(changes)
    assert message.startswith(parts[0])
    assert all(part in message for part in parts[1:]), message


def test_missing_field() -> None:
    message = refused({}, removed=("optim", "max_steps"))
    assert message.startswith("optim.max_steps: missing; expected an int >= 1")
    assert "configs/default.py" in message


def test_allowed_leniency() -> None:
    values = values_of("default").to_dict()
    values["optim"]["weight_decay"] = 1  # an int where a float belongs
    values["ddt"]["depth"] = [3, 1]  # JSON has no tuples
    values["ddt"]["use_rope"] = values["ddt"]["use_pos_embed"] = False
    values["ddt"]["hidden_size"] = (6, 6)  # heads of 3: fine without positions
    values["ddt"]["num_heads"] = (2, 2)
    values["optim"] |= {"decay": "constant", "decay_end_step": 0}
    config = from_config_dict(ml_collections.ConfigDict(values))
    assert repr(config.optim.weight_decay) == "1.0"
    assert config.ddt.depth == (3, 1)


def test_describe_field() -> None:
    assert describe_field("sample.grid", "x") == "one of 'official', 'full'"
    with pytest.raises(ConfigError, match=r"^optm.beta1: got '1'; .* did you mean optim.beta1\?$"):
        describe_field("optm.beta1", "1")
    with pytest.raises(ConfigError, match=r"^seed.x: got '1'; seed is not a section"):
        describe_field("seed.x", "1")


def test_parse_labels() -> None:
    assert parse_labels("", 3) == (0, 1, 2)
    assert parse_labels("2, 0,5-7", 10) == (2, 0, 5, 6, 7)
    for wrong in ("3-1", "a", "1,", "-1", "0-10", "10"):
        with pytest.raises(ConfigError, match=r"^sample\.labels"):
            parse_labels(wrong, 10)


def changed(config: Config, *, batch_size: int, accumulate_steps: int, fsdp: int) -> Config:
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=batch_size),
        optim=dataclasses.replace(config.optim, accumulate_steps=accumulate_steps),
        sharding=dataclasses.replace(config.sharding, fsdp=fsdp),
    )


def test_check_devices() -> None:
    reference = from_config_dict(values_of("default"))
    fitting = changed(reference, batch_size=64, accumulate_steps=2, fsdp=4)
    check_devices(fitting, platform="cpu", num_devices=8, num_processes=2)
    with pytest.raises(ConfigError, match=r"^sharding.fsdp: got 4; .* 6 devices: 1 or 2 or 3 or 6"):
        check_devices(fitting, platform="cpu", num_devices=6, num_processes=2)
    with pytest.raises(ConfigError, match=r"^data.batch_size: got 64; .*; use 48 or 96$"):
        check_devices(fitting, platform="cpu", num_devices=24, num_processes=1)
    with pytest.raises(ConfigError, match=r"^data.batch_size: got 64; .*; use 256$"):
        check_devices(fitting, platform="cpu", num_devices=128, num_processes=1)
    with pytest.raises(ConfigError, match=r"^data.batch_size: got 64; .*; use 48 or 96$"):
        check_devices(fitting, platform="cpu", num_devices=8, num_processes=3)


@pytest.mark.parametrize(
    ("attention", "precision", "platform", "message"),
    [
        ("cudnn", "bf16", "cpu", "'auto' or 'xla' on cpu; 'cudnn' is for gpu"),
        ("splash", "bf16", "gpu", "'auto' or 'xla' on gpu; 'splash' is for tpu"),
        ("cudnn", "tf32", "gpu", "'auto' or 'xla' with precision = 'tf32'; cuDNN's is for bf16"),
        ("cudnn", "bf16", "gpu", None),
        ("splash", "bf16", "tpu", None),
        ("splash", "fp32", "tpu", None),
        ("xla", "fp32", "cpu", None),
        ("auto", "fp32", "gpu", None),
    ],
)
def test_a_kernel_that_is_not_there_is_refused(attention, precision, platform, message) -> None:
    reference = from_config_dict(values_of("default"))
    compute = dataclasses.replace(reference.compute, attention=attention)
    config = dataclasses.replace(reference, precision=precision, compute=compute)
    if message is None:
        check_devices(config, platform=platform, num_devices=1, num_processes=1)
        return
    with pytest.raises(ConfigError) as caught:
        check_devices(config, platform=platform, num_devices=1, num_processes=1)
    assert str(caught.value) == f"compute.attention: got {attention!r}; expected {message}"
