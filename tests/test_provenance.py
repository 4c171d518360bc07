"""Provenance: equal values pass, every other one is named with what it was and is."""

import hashlib
import json

import jax
import pytest

import rae_dit
from rae_dit import provenance
from rae_dit.config import ConfigError
from rae_dit.provenance import Provenance, file_hash, file_record

NOW = Provenance.of({"seed": 0, "encoder": {"depth": 2, "mean": (0.5, 0.25)}, "precision": "fp32"})


def test_what_json_gives_back_is_the_same():
    NOW.require_same(json.loads(json.dumps(NOW.values)), "x.json", "Delete it")
    assert NOW.values["encoder"]["mean"] == [0.5, 0.25]
    assert NOW.changes({**NOW.values}) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"seed": 1}, "seed: got 1; expected 0"),
        ({"encoder": {"depth": 2, "mean": [0.5, 0.5]}},
         "encoder.mean: got [0.5, 0.5]; expected [0.5, 0.25]"),
        ({"encoder": {"depth": 2}}, "encoder.mean: got nothing; expected [0.5, 0.25]"),
        ({"crop": "center"}, "crop: got 'center'; expected nothing"),
        ({"seed": None, "precision": "bf16"},
         "precision: got 'bf16'; expected 'fp32', seed: got None; expected 0"),
    ],
)  # fmt: skip
def test_every_other_value_is_named(found, message):
    with pytest.raises(ConfigError) as caught:
        NOW.require_same({**NOW.values, **found}, "x.json", "Delete it")
    assert str(caught.value) == f"x.json: {message}. Delete it"


def test_a_part_is_compared_with_its_names_only():
    part = NOW.without("precision", "encoder")
    assert [change.name for change in part.changes(NOW.values)] == [
        "encoder.depth", "encoder.mean", "precision",
    ]  # fmt: skip
    assert part.changes(NOW.values, partly=True) == []
    assert [str(c) for c in (part | {"seed": 3}).changes(NOW.values, partly=True)] == [
        "seed: got 0; expected 3"
    ]


def test_a_file_that_is_older_than_a_value_has_what_was_done_then():
    values = {"encoder": {"depth": 2, "layers": []}, "internal_scale": 1.0, "flow.prediction": "v"}
    before = {"encoder": {"depth": 2}}
    assert Provenance.of(values).changes(before) == []
    assert Provenance.of(values).changes(before, partly=True) == []
    now = Provenance.of(values | {"encoder": {"depth": 2, "layers": [1]}, "internal_scale": 1.5})
    assert [str(change) for change in now.changes(before)] == [
        "encoder.layers: got []; expected [1]",
        "internal_scale: got 1.0; expected 1.5",
    ]


def test_long_values_are_cut_and_the_error_may_be_another():
    with pytest.raises(KeyError, match=r"x: a: got 'zzz+\.\.\.; expected 1\. y") as caught:
        Provenance.of({"a": 1}).require_same({"a": "z" * 500}, "x", "y", error=KeyError)
    assert len(str(caught.value)) < 120


def test_running_code_follows_every_source_file(tmp_path, monkeypatch):
    for name in ("provenance.py", "a/b.py", "a/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    seen = [provenance.running_code()]
    (tmp_path / "a" / "notes.txt").write_text("no code")
    assert provenance.running_code() == seen[0]
    assert seen[0]["jax"] == jax.__version__
    (tmp_path / "a" / "c.py").write_text("x = 1")
    seen.append(provenance.running_code())
    (tmp_path / "a" / "c.py").rename(tmp_path / "a" / "d.py")
    seen.append(provenance.running_code())
    assert len({code["rae_dit"] for code in seen}) == 3
    assert {code["rae_dit"].split(", ")[0] for code in seen} == {rae_dit.__version__}


def test_hosts_may_differ_in_paths_and_workers_only():
    config = {"data": {"path": "/a/b", "num_workers": 4, "crop": "random"}, "seed": 0}
    seen = provenance.running_command("train", config)
    assert seen == {
        **{"--mode": "train", "--config.data.crop": "'random'", "--config.seed": "0"},
    }


def test_what_json_cannot_say_is_refused_at_once():
    with pytest.raises(TypeError):
        Provenance.of({"a": object()})


def test_a_hash_follows_the_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_hash(path).startswith("ba7816bf8f01cfea")
    path.write_bytes(b"abcd")
    assert file_hash(path).startswith("88d4266fd4e6338d")


def test_a_file_is_recorded_with_its_hash(tmp_path):
    assert file_record("") is None
    assert file_record(str(tmp_path)) == {"path": str(tmp_path)}  # a directory of images
    path = tmp_path / "file"
    path.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    assert file_record(str(path)) == {"path": str(path), "sha256": digest}
