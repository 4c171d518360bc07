"""From `data.source` and `data.path` to a source: what the configuration may say, and errors."""

import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from support.image_files import encoded, take
from support.parquet_files import named, table, write_shard
from support.tar_files import record, write_tar
from support.tfds_files import write_tfds

from configs import default, dit_dino
from rae_dit.config import ConfigError, from_config_dict
from rae_dit.data.files import Images
from rae_dit.setup import data
from rae_dit.setup.run import open_run
from rae_dit.training.sharding import make_mesh


def config_of(source, path="", validation_path="", **changes):
    """The default config with three classes of 256 px images."""
    values = default.get_config()
    data = {"source": source, "path": path, "validation_path": validation_path}
    values.data.update(data | {"num_classes": 3} | changes)
    return from_config_dict(values)


def write_folder(root, numbers):
    for number in numbers:
        (root / f"class-{number % 3}").mkdir(parents=True, exist_ok=True)
        (root / f"class-{number % 3}" / f"{number}.jpg").write_bytes(encoded(number, "JPEG"))


def both_splits(kind, root) -> tuple[str, str]:
    """Records 0..5 for training and 6..8 for validation; returns their paths."""
    train, validation = root / "train-data", root / "validation-data"
    match kind:
        case "folder":
            write_folder(train, range(6))
            write_folder(validation, range(6, 9))
        case "huggingface":
            write_shard(root / "train-0.parquet", table(range(6)))
            write_shard(root / "validation-0.parquet", table(range(6, 9)))
            return str(root / "train-*"), str(root / "validation-*")
        case "tfds":
            path = write_tfds(root, {"train": range(6), "validation": range(6, 9)})
            return str(path), str(path)
        case "tar":
            write_tar(root / "train-0.tar", [m for n in range(6) for m in record(n, f"{n}")])
            write_tar(root / "val-0.tar", [m for n in range(6, 9) for m in record(n, f"{n}")])
            return str(root / "train-0.tar"), str(root / "val-*")
    return str(train), str(validation)


@pytest.mark.parametrize("kind", ["folder", "huggingface", "tfds", "tar"])
def test_every_kind_gives_the_same_records_of_both_splits(kind, tmp_path):
    path, validation_path = both_splits(kind, tmp_path)
    config = config_of(kind, path, validation_path, crop="random", max_bad_share=0.25)
    known = {encoded(n, "JPEG"): n for n in range(9)}
    for split, numbers in (("train", range(6)), ("validation", range(6, 9))):
        source = data.open_source(config, split)
        assert isinstance(source, Images)
        found = [source.files.read(index) for index in range(len(source))]
        assert sorted(known[content] for content, _ in found) == list(numbers)
        assert all(label == known[content] % 3 for content, label in found)
        assert source.fingerprint.startswith(f"{kind}/")
        assert (source.image_size, source.num_classes) == (256, 3)
        assert (source.crop, source.max_bad_share) == ("random", 0.25)
        assert source[0]["image"].shape == (256, 256, 3)
    (batch,) = take(data.open_source(config, "train"), 1)
    assert batch["image"].shape == (4, 256, 256, 3)
    assert batch["image"].dtype == np.uint8


@pytest.mark.parametrize("kind", ["folder", "huggingface", "tfds", "tar"])
def test_a_missing_path_is_refused_only_when_it_is_opened(kind):
    config = config_of(kind)
    assert data.open_source(config, "validation") is None
    with pytest.raises(ConfigError, match=r"^data\.path: got ''; expected (a|the) directory") as it:
        data.open_source(config, "train")
    assert "\n" not in str(it.value)


def test_a_wrong_validation_path_is_named_as_such(tmp_path):
    config = config_of("folder", str(tmp_path), str(tmp_path / "val"))
    with pytest.raises(ConfigError, match=r"^data\.validation_path: got .*val', which does not ex"):
        data.open_source(config, "validation")


def write_classes(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "0.jpg").write_bytes(encoded(0, "JPEG"))
    return str(root)


def test_folders_of_other_classes_are_refused(tmp_path):
    train = write_classes(tmp_path / "train", ("ant", "bird", "cat"))
    same = write_classes(tmp_path / "same", ("cat", "ant", "bird"))
    other = write_classes(tmp_path / "other", ("bird", "cat", "horse"))
    check_both(config_of("folder", train, same))
    message = f"^data.validation_path: got '{other}', where label 0 is 'bird', not 'ant'; expected"
    config = config_of("folder", train, other, batch_size=1)
    with pytest.raises(ConfigError, match=message):
        check_both(config)
    with pytest.raises(ConfigError, match=message):  # before any network is made
        open_run(config, make_mesh(1, jax.devices()[:1]))


def test_shards_of_other_classes_are_refused(tmp_path):
    for split, names in (("train", ["cat", "dog", "cow"]), ("validation", ["cat", "cow", "dog"])):
        write_shard(tmp_path / f"{split}-0.parquet", named(table(range(3)), names))
    write_shard(tmp_path / "test-0.parquet", table(range(3)))  # no names: nothing to compare
    train = str(tmp_path / "train-*")
    check_both(config_of("huggingface", train, str(tmp_path / "test-*")))
    with pytest.raises(ConfigError, match=r"where label 1 is 'cow', not 'dog'; expected the clas"):
        check_both(config_of("huggingface", train, str(tmp_path / "validation-*")))


def check_both(config):
    train = data.open_source(config, "train")
    data.check_same_classes(config, train, data.open_source(config, "validation"))


@pytest.mark.parametrize("kind", ["folder", "huggingface", "tfds"])
def test_another_number_of_classes_is_refused_by_every_source_that_knows_it(kind, tmp_path):
    path, _ = both_splits(kind, tmp_path)
    if kind == "huggingface":
        write_shard(tmp_path / "train-0.parquet", named(table(range(6)), ["cat", "dog", "cow"]))
    data.open_source(config_of(kind, path), "train")
    with pytest.raises(ConfigError, match=r"^data\.path: got .*data\.num_classes = 1000 of them$"):
        data.open_source(config_of(kind, path, num_classes=1000), "train")


@pytest.mark.parametrize("kind", ["folder", "huggingface", "tfds", "tar"])
def test_a_host_with_other_files_than_process_0_is_refused(kind, tmp_path, monkeypatch):
    path, _ = both_splits(kind, tmp_path)
    config = config_of(kind, path)
    listed = data.open_source(config, "train")
    monkeypatch.setattr(data, "share", lambda make, error: listed)  # as from process 0
    monkeypatch.setattr(data, "first_error", lambda problem: problem)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    data.open_source(config, "train")
    file = Path(listed.files.listing.sizes[-1][0])
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"x")
    message = rf"^data\.path: got '{file}' with {size + 1:,} bytes on host .*; expected {size:,} by"
    with pytest.raises(ConfigError, match=message):
        data.open_source(config, "train")
    file.unlink()
    with pytest.raises(ConfigError, match="with No such file or directory on host"):
        data.open_source(config, "train")


@pytest.mark.parametrize("kind", ["tar", "huggingface"])
def test_labels_beyond_the_classes_are_refused_when_it_is_opened(kind, tmp_path):
    path, _ = both_splits(kind, tmp_path)
    with pytest.raises(ConfigError, match=r"with the labels 0 to 2; expected 0 to 1, because"):
        data.open_source(config_of(kind, path, num_classes=2), "train")


def test_one_line_says_what_was_opened_and_left_out(tmp_path, caplog):
    path, validation_path = both_splits("folder", tmp_path)
    (tmp_path / "train-data" / "class-0" / "notes.txt").write_text("")
    with caplog.at_level(logging.INFO, "rae_dit"):
        data.open_source(config_of("folder", path, validation_path), "train")
        data.open_source(config_of("synthetic"), "train")
    assert [record.getMessage() for record in caplog.records] == [
        "data.path: 6 images of 3 classes from 6 files; left out: 1 .txt",
        "synthetic: 1,024 images of 3 classes",
    ]


@pytest.mark.parametrize("source", ["tar", "synthetic"])
def test_numeric_classes_are_of_folders(source):
    with pytest.raises(ConfigError, match=r"^data\.numeric_classes: got True; expected False bec"):
        config_of(source, numeric_classes=True)


def test_the_reference_config_wants_a_path():
    config = from_config_dict(dit_dino.get_config())
    assert (config.data.source, config.data.crop) == ("huggingface", "adm_center")
    with pytest.raises(ConfigError, match=r"^data\.path: got ''; .* \*\.parquet or \*\.arrow"):
        data.open_source(config, "train")


@pytest.mark.parametrize("source", ["digits", "synthetic"])
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("path", "/x", "''"), ("validation_path", "/x", "''"), ("crop", "random", "'adm_center'")],
)
def test_sources_without_files_take_no_settings_of_files(source, field, value, expected):
    values = default.get_config()
    values.data.update({"source": source, field: value})
    with pytest.raises(ConfigError) as caught:
        from_config_dict(values)
    wanted = f"data.{field}: got {value!r}; expected {expected} because {source!r} reads no files"
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("field", "value"), [("crop", "center"), ("max_bad_share", 1.5), ("source", "imagefolder")]
)
def test_impossible_values_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"^data.{field}: got "):
        config_of(**({"source": "folder"} | {field: value}))
