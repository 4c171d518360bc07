"""Every data source from a bucket gives the bytes, order and fingerprint of the local one."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from support.image_files import TRAIN, encoded
from support.parquet_files import named, table, write_shard
from support.tar_files import record, write_tar
from support.tfds_files import write_tfds

from rae_dit.data.class_files import read_names
from rae_dit.data.files import Images
from rae_dit.data.pipeline import train_batches
from rae_dit.data.readers import open_source
from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import upload_tree
from rae_dit.storage.places import place

COUNT = 9


def make_folder(root: Path) -> str:
    for number in range(COUNT):
        folder = root / "abc"[number % 3] / ("deep" if number % 2 else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.{'PNG' if number % 2 else 'jpeg'}").write_bytes(encoded(number))
    (root / "a" / "note.txt").write_text("x")
    (root / "a" / ".hidden").write_text("x")
    (root / "readme.md").write_text("x")
    return ""


def make_tar(root: Path) -> str:
    for shard in range(3):
        members = [m for n in range(shard * 3, shard * 3 + 3) for m in record(n, f"k/{n}")]
        write_tar(root / f"train-{shard:04}.tar", [*members, ("note.json", b"{}")])
    return "/train-{0000..0002}.tar"


def make_parquet(root: Path) -> str:
    for shard in range(2):
        content = named(table(range(shard * 5, shard * 5 + 5)), ["a", "b", "c"])
        write_shard(root / f"train-{shard:05}-of-00002.parquet", content)
    return "/train-*"


def make_arrow(root: Path) -> str:
    write_shard(root / "stream.arrow", table(range(COUNT)))
    return ""


def make_tfds(root: Path) -> str:
    write_tfds(root, {"train": range(COUNT)})
    return "/tiny/1.0.0"


SOURCES = {
    "folder": ("folder", make_folder),
    "tar": ("tar", make_tar),
    "parquet": ("huggingface", make_parquet),
    "arrow": ("huggingface", make_arrow),
    "tfds": ("tfds", make_tfds),
}


def opened(kind: str, path: str, listings: Path | None = None) -> Images:
    source = open_source(
        kind,
        path,
        split="train",
        image_size=16,
        num_classes=3,
        crop="adm_center",
        max_bad_share=0.0,
        listings=listings,
    )
    assert isinstance(source, Images)
    return source


@pytest.fixture(params=sorted(SOURCES))
def pair(request, bucket, tmp_path: Path, monkeypatch):
    """The same source on disk and in a bucket; how to open the second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kind, make = SOURCES[request.param]
    inside = make(tmp_path / "data") if (tmp_path / "data").mkdir() is None else ""
    remote = place(f"{bucket.url}/data/{time.time_ns()}")
    upload_tree(tmp_path / "data", remote)
    return opened(kind, f"{tmp_path / 'data'}{inside}"), kind, f"{remote}{inside}"


def test_bytes_order_and_fingerprint_are_those_of_the_disk(pair, tmp_path: Path) -> None:
    local, kind, path = pair
    remote = opened(kind, path)
    assert remote.fingerprint == local.fingerprint
    assert len(remote) == len(local)
    assert [remote.files.read(i) for i in range(len(remote))] == [
        local.files.read(i) for i in range(len(local))
    ]
    assert remote.files.listing.classes == local.files.listing.classes
    assert remote.files.listing.remarks == local.files.listing.remarks
    again = pickle.loads(pickle.dumps(remote))  # as a worker gets it
    np.testing.assert_array_equal(again[3]["image"], local[3]["image"])
    with train_batches(remote, **TRAIN) as found, train_batches(local, **TRAIN) as expected:
        for _ in range(3):
            here, there = next(found), next(expected)
            np.testing.assert_array_equal(here["image"], there["image"])
            np.testing.assert_array_equal(here["label"], there["label"])
    assert opened(kind, path, tmp_path / "kept").fingerprint == local.fingerprint
    assert opened(kind, path, tmp_path / "kept").fingerprint == local.fingerprint


@pytest.mark.parametrize("pair", ["folder", "tar", "parquet"], indirect=True)
def test_a_failing_network_is_no_damaged_image(bucket, pair) -> None:
    _, kind, path = pair
    remote = opened(kind, path)
    fs = place(path).fs
    fs._patience = 0.0
    try:
        for status in (503, 403):
            with bucket.failing(lambda method, where, code=status: code):
                with pytest.raises(StorageError):
                    remote[0]
                with pytest.raises(StorageError):
                    opened(kind, path)
    finally:
        fs._patience = 300.0
    assert not remote[0]["replaced"]


def test_listings_of_tar_files_are_kept_until_an_object_changes(
    bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    make_tar(tmp_path / "data")
    remote = place(f"{bucket.url}/kept/{time.time_ns()}")
    upload_tree(tmp_path / "data", remote)
    first = opened("tar", str(remote), tmp_path / "kept")
    monkeypatch.setattr("rae_dit.data.tar.open_binary", pytest.fail)
    again = opened("tar", str(remote), tmp_path / "kept")
    assert again.fingerprint == first.fingerprint
    assert again.files.read(4) == first.files.read(4)
    monkeypatch.undo()
    write_tar(tmp_path / "data" / "train-0001.tar", record(7, "other"))
    upload_tree(tmp_path / "data", remote)
    assert opened("tar", str(remote), tmp_path / "kept").fingerprint != first.fingerprint


def test_what_is_not_there_is_said(bucket) -> None:
    for kind in ("folder", "tar", "huggingface", "tfds"):
        with pytest.raises(ValueError, match=r"got 'gs://rae/none', below which nothing is"):
            opened(kind, f"{bucket.url}/none")
    place(f"{bucket.url}/names.txt").write_text("a\nb\nc\n")
    assert read_names(f"{bucket.url}/names.txt") == ("a", "b", "c")
