"""--help_config and the reference of fields: every field, with its type, value and meaning."""

import sys

import pytest
from absl import flags

from configs import default
from rae_dit.config.reference import fields, help_text, sections
from rae_dit.config.training import OptimConfig
from rae_dit.request import define_flags, read_request

DEFAULTS = default.get_config().to_dict()
FIELDS = [field for _, _, members in sections() for field in members]


def test_every_field_of_the_default_config_is_there_once():
    paths = {
        f"{section}.{name}" if isinstance(value, dict) else section
        for section, value in DEFAULTS.items()
        for name in (value if isinstance(value, dict) else [""])
    }
    assert sorted(field.path for field in FIELDS) == sorted(paths)


def test_every_field_has_a_meaning():
    """If this fails, write a comment beside the field, in its dataclass."""
    assert [field.path for field in FIELDS if not field.meaning] == []


def test_meanings_are_those_of_the_field():
    """Beside it; above it; in the list of a docstring."""
    said = {field.path: field for field in FIELDS}
    assert said["optim.clip_norm"].meaning == "global norm of the gradient; None = not clipped"
    assert said["data.crop"].meaning.startswith("Training crop: the center; a random place")
    assert said["ddt.use_qknorm"].meaning == "normalize each head's queries and keys."
    assert said["optim.clip_norm"].allowed == "a finite float > 0 or None"
    (momentum,) = (f for f in fields(OptimConfig, "optim") if f.path == "optim.momentum")
    assert momentum.meaning == "of 'sgd' and of Muon"


def test_a_changed_value_is_shown_beside_the_default():
    values = DEFAULTS | {"optim": DEFAULTS["optim"] | {"decay": "cosine"}}
    text = help_text("optim.decay", values, DEFAULTS)
    assert "--config.optim.decay=cosine   (configs/default.py: linear)" in text
    assert "one of 'constant', 'linear', 'cosine'" in text
    assert text.count("--config.") == 1
    assert "--config.ddt.depth='(28,2)'" in help_text("ddt", values, DEFAULTS)


def asked(monkeypatch, *arguments):
    argv = ["rae_dit.main", *arguments]
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for overrides
    values = flags.FlagValues()
    define_flags(values)
    with pytest.raises(SystemExit) as end:
        read_request(argv, values)
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["--help_config"], len(FIELDS)),
        (["--config=configs/dit_dino.py", "--help_config", "--config.seed=3"], len(FIELDS)),
        (["--help_config=ema"], 1),
    ],
)
def test_the_command_explains_fields_and_needs_no_workdir(monkeypatch, capsys, arguments, number):
    assert asked(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert out.count("\n  --config.") == number
    assert ("--config.seed=3   (configs/default.py: 42)" in out) == ("--config.seed=3" in arguments)


def test_an_unknown_field_is_one_line(monkeypatch, capsys):
    assert asked(monkeypatch, "--help_config=optm") == 2
    error = capsys.readouterr().err
    assert error.startswith("rae_dit: --help_config: got 'optm'; expected a field such as")
    assert error.count("\n") == 1
