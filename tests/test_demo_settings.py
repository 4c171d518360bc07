"""What is typed on the demo page: sound settings, or one line."""

import dataclasses
import shlex

import pytest
from support.demo_model import empty_model

from rae_dit.config import ConfigError
from rae_dit.demo.__main__ import interval
from rae_dit.demo.catalog import Catalog
from rae_dit.demo.parts import Parts
from rae_dit.demo.settings import class_choices, command, methods, read_classes, read_settings

NAMES = ("zero", "one", "tench", "one")
TYPED = {
    "classes": [],
    "number": 8,
    "seed": 0,
    "method": "euler",
    "steps": 50,
    "guidance": "none",
    "scale": 1,
    "interval": (0, 1),
}


@pytest.mark.parametrize(
    ("chosen", "labels"),
    [
        ([], (0, 1, 2, 3)),
        (["2 tench", "0"], (2, 0)),
        (["Tench"], (2,)),
        (["one"], (1,)),  # the first of two with this name
        (["3 one"], (3,)),
        (["1-3, zero"], (1, 2, 3, 0)),
    ],
)
def test_classes_are_names_numbers_and_ranges(chosen, labels):
    assert read_classes(chosen, NAMES) == labels


@pytest.mark.parametrize("text", ["tenhc", "4", "3-1", "0-9", "-1", "²", "x" * 500, "1" * 50])
def test_a_class_that_is_none_is_one_line(text):
    with pytest.raises(ConfigError, match=r"^classes: got .*; expected names or numbers") as error:
        read_classes([text], NAMES)
    assert len(str(error.value)) < 300
    if text == "tenhc":
        assert "did you mean 'tench'?" in str(error.value)


def test_names_that_are_their_numbers_are_listed_once():
    assert class_choices(["0", "1", "one"]) == ["0", "1", "2 one"]


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("number", 65, "number"),
        ("number", 10**400, "number"),
        ("number", None, "number"),
        ("number", 8.5, "number"),
        ("number", float("nan"), "number"),
        ("number", "8", "number"),
        ("seed", -1, "seed"),
        ("seed", 2**32, "seed"),
        ("steps", 10**9, "steps"),
        ("steps", 1, "sample.num_steps"),  # of the official grid
        ("method", "rk4", "sample.method"),
        ("guidance", "internal", "guidance"),
        ("guidance", "autoguidance", "guidance"),
        ("scale", None, "sample.cfg_scale"),
        ("scale", float("inf"), "sample.cfg_scale"),
        ("interval", (0.9, 0.1), "sample.cfg_interval"),
        ("interval", (None, 1), "sample.cfg_interval[0]"),
    ],
)
def test_a_setting_that_is_not_possible_is_one_line(name, value, field):
    typed = {**TYPED, "guidance": "cfg", name: value}
    with pytest.raises(ConfigError) as error:
        read_settings(empty_model(), **typed)
    assert str(error.value).startswith(f"{field}: got ")
    assert "; expected " in str(error.value)
    assert "\n" not in str(error.value)


def test_each_kind_of_guidance_asks_for_its_network():
    model = empty_model(guide=object(), base_depth=8)
    assert model.guidance_kinds == ["none", "cfg", "autoguidance", "internal"]
    assert empty_model().guidance_kinds == ["none", "cfg"]
    internal = read_settings(model, **{**TYPED, "guidance": "internal", "scale": 1.5})
    assert (internal.sample.guidance, internal.scale) == ("internal", 1.5)
    assert read_settings(model, **{**TYPED, "scale": 7}).scale == 1  # "none"
    with pytest.raises(ConfigError, match="makes no images"):
        read_settings(dataclasses.replace(model, generator=None), **TYPED)


def test_jumps_are_offered_to_networks_of_two_times():
    assert "mean_flow" in methods(empty_model(jumps=True))
    assert "mean_flow" not in methods(empty_model())
    typed = {**TYPED, "method": "mean_flow", "steps": 1}
    assert read_settings(empty_model(jumps=True), **typed).sample.grid == "full"
    with pytest.raises(ConfigError, match=r"^method: got 'mean_flow'; expected 'euler'"):
        read_settings(empty_model(), **typed)
    with pytest.raises(ConfigError, match=r"^sample\.cfg_scale: got 2\.0; expected 1 "):
        read_settings(empty_model(jumps=True), **{**typed, "guidance": "cfg", "scale": 2.0})


def test_the_command_says_all_that_images_depend_on():
    model = empty_model()
    typed = {**TYPED, "classes": ["tench"], "guidance": "cfg", "scale": 1.1, "interval": (0.1, 0.9)}
    settings = read_settings(model, **typed)
    text = command(model, settings, Parts(encoder="a b", encoder_input_size=224), "out")
    words = shlex.split(text)
    assert words[:4] == ["python", "-m", "rae_dit.demo", "RUN"]
    assert {"--encoder=a b", "--encoder-input-size=224", "--write=out"} <= set(words)
    given = dict(word[2:].split("=", 1) for word in words[4:])
    low_high = interval(given["interval"])
    again = read_settings(
        model,
        classes=[given["classes"]],
        number=int(given["number"]),
        seed=int(given["seed"]),
        method=given["method"],
        steps=int(given["steps"]),
        guidance=given["guidance"],
        scale=float(given["scale"]),
        interval=low_high,
    )
    assert again == settings


@pytest.mark.parametrize("name", ["/etc", "RUN/../..", "", None, ["RUN"], "file:///etc/passwd"])
def test_only_models_of_the_command_line_are_read(name):
    catalog = Catalog(["RUN"], Parts())
    with pytest.raises(ConfigError, match=r"^model: got .*; expected a model of the command line"):
        catalog.load(name)
    assert catalog.names() == ["RUN"]
