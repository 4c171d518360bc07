"""--dry_run: what a run would train, need and write, without doing it."""

import dataclasses
from pathlib import Path

import pytest

from configs import dit_dino, dit_dummy
from rae_dit.config import Config, ConfigError, from_config_dict
from rae_dit.main import main
from rae_dit.planning.dry_run import dry_run, look_for, needed_files
from rae_dit.request import Request


def config(recipe, **sections: dict[str, object]) -> Config:
    values = recipe.get_config()
    for section, changes in sections.items():
        values[section].update(changes)
    return from_config_dict(values)


@pytest.fixture
def images(tmp_path: Path) -> str:
    for i in range(3):
        (tmp_path / f"train-{i}.parquet").touch()
    return str(tmp_path / "train-*")


def test_the_reference_run_in_words(images: str, tmp_path: Path) -> None:
    """Parameters and bytes of DiT^DH-XL as counted by hand: 839 M x 4 bytes = 3.12 GiB."""
    big = config(dit_dino, data={"path": images})
    text, missing = dry_run(big, tmp_path / "run", "train")
    assert "Trains a DiT^DH of 838,675,796 parameters; 86,582,016 more are frozen" in text
    assert "1,000,800 steps of 1,024 images, 256 px, tf32, adamw, learning rate 0.0002" in text
    assert "8 x cpu, 128 images each, fsdp 1" in text
    lines = dict(line.rsplit(None, 2)[:2] for line in text.splitlines() if line.endswith(" GiB"))
    assert {name.strip(): size for name, size in lines.items()} == {
        **{"parameters": "3.12", "ema": "3.12", "optimizer": "6.25"},
        **{"together": "12.84"},
    }
    assert "data.path" in text
    assert "3 files" in text
    assert missing == []
    assert f"Writes into {tmp_path / 'run'}/" in text
    assert not (tmp_path / "run").exists()


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "stat.pt").write_bytes(b"12345")
    found = {
        file.field: file
        for file in needed_files(
            config(
                dit_dino,
                data={"path": str(tmp_path / "train-*"), "validation_path": "gs://bucket/x-*"},
                encoder={"pretrained": "./nothing", "statistics": str(tmp_path / "stat.pt")},
                decoder={"pretrained": "owner/no-such-repository"},
            )
        )
    }
    states = {field: file.is_missing for field, file in found.items()}
    assert states == {
        **{"data.path": True, "data.validation_path": False, "encoder.pretrained": True},
        **{"encoder.statistics": False, "decoder.pretrained": False},
    }
    assert found["encoder.statistics"].state == "5 bytes"
    assert "fetched when first used" in found["decoder.pretrained"].state
    assert "was not asked" in found["data.validation_path"].state


def test_a_source_that_needs_a_path_says_so() -> None:
    (file,) = (f for f in needed_files(config(dit_dino)) if f.field == "data.path")
    assert file.is_missing


@pytest.mark.parametrize(
    ("value", "is_missing"),
    [
        ("{0}/5.1.0#train[:98%]", False),
        ("{0}/x-{{0..3}}.tar", False),
        ("{0}/no/x-{{0..3}}", True),
        ("x" * 5000, True),
    ],
)
def test_other_forms_of_paths(tmp_path: Path, value: str, is_missing: bool) -> None:
    (tmp_path / "5.1.0").mkdir()
    assert look_for("data.path", value.format(tmp_path)).is_missing == is_missing


def test_the_command_prints_it_and_writes_nothing(tmp_path: Path, capsys) -> None:
    small = config(dit_dummy)
    main(Request(small, tmp_path / "run", "train", None, dry_run=True))
    out = capsys.readouterr().out
    assert "Trains a DiT^DH" in out
    assert "KiB" in out
    encoder = dataclasses.replace(small.encoder, statistics="no.npz")
    with pytest.raises(SystemExit) as end:
        main(
            Request(
                dataclasses.replace(small, encoder=encoder),
                tmp_path / "run",
                "sample",
                None,
                dry_run=True,
            )
        )
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert "Trains" not in captured.out
    assert captured.err == (
        "rae_dit: encoder.statistics: got 'no.npz'; expected a path that exists\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_devices_that_cannot_share_the_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size"):
        dry_run(config(dit_dummy, data={"batch_size": 12}), tmp_path, "train")
