"""A kept listing is that of a new one, until anything that was listed changes."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tar_files import write_tar

from rae_dit.data import listing_cache, readers
from rae_dit.data.folder import Folder, open_folder
from rae_dit.data.listing_cache import watched
from rae_dit.storage.errors import StorageError


def picture(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name in ("a/1.png", "a/below/deeper/2.png", "b/3.png"):
        picture(root / name)
    (root / "b" / "empty").mkdir()
    (root / "b" / os.fsdecode(b"odd \xff.txt")).write_text("left out")
    return root


@pytest.fixture
def open_(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Opens a source; returns its reader and whether the listing was a kept one."""
    monkeypatch.setattr(listing_cache, "SETTLED_SECONDS", -60.0)  # nobody has to wait
    caplog.set_level(logging.INFO, "rae_dit")

    def opened(kind: readers.SourceName, path: Path, num_classes: int = 2):
        caplog.clear()
        source = readers.open_source(
            kind,
            str(path),
            split="train",
            image_size=8,
            num_classes=num_classes,
            crop="adm_center",
            max_bad_share=0.0,
            listings=tmp_path / "listings",
        )
        assert isinstance(source, readers.Images)
        return source.files, "unchanged since it was listed" in caplog.text

    return opened


def contents(files) -> list[object]:
    return [files.fingerprint, files.listing, *(files.read(i) for i in range(len(files)))]


def test_a_kept_listing_is_a_new_one(folder: Path, open_, monkeypatch) -> None:
    first, was_kept = open_("folder", folder)
    assert not was_kept
    monkeypatch.setattr("rae_dit.data.folder._images", None)  # nothing is listed again
    again, was_kept = open_("folder", folder)
    assert was_kept
    assert contents(again) == contents(first)
    assert [again.name(i) for i in range(3)] == [first.name(i) for i in range(3)]
    assert isinstance(again, Folder)
    assert again.classes == ("a", "b")
    assert watched(again) == watched(first)
    assert {os.fsdecode(path).removeprefix(f"{folder}") for path in watched(first)} == {
        *("", "/a/", "/a/below", "/a/below/deeper", "/b/", "/b/empty"),
    }


def change(folder: Path, what: str) -> None:
    match what:
        case "added":
            picture(folder / "a" / "4.png")
        case "added far below":
            picture(folder / "a" / "below" / "deeper" / "4.png")
        case "added where there was none":
            picture(folder / "b" / "empty" / "4.png")
        case "removed":
            (folder / "a" / "below" / "deeper" / "2.png").unlink()
            picture(folder / "a" / "4.png")
        case "renamed":
            (folder / "b" / "3.png").rename(folder / "b" / "4.png")


@pytest.mark.parametrize(
    "what", ["added", "added far below", "added where there was none", "removed", "renamed"]
)
def test_what_changes_is_listed_again(folder: Path, open_, what: str) -> None:
    before, _ = open_("folder", folder)
    change(folder, what)
    after, was_kept = open_("folder", folder)
    assert not was_kept
    assert after.fingerprint == open_folder(str(folder), 2).fingerprint != before.fingerprint
    assert open_("folder", folder)[1]


def test_other_settings_are_other_listings(folder: Path, open_) -> None:
    open_("folder", folder)
    picture(folder / "c" / "1.png")
    assert len(open_("folder", folder, 3)[0]) == 4
    assert open_("folder", folder, 3)[1]


def test_tar_files(tmp_path: Path, open_) -> None:
    """Kept; until a shard is written again, in place and of the same size, or one is added."""
    root = tmp_path / "tars"
    picture(tmp_path / "x.png")

    def write(name: str, label: int) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = (tmp_path / "x.png").read_bytes()
        write_tar(root / name, [("1.png", image), ("1.cls", str(label).encode())])

    write("0/train.tar", 1)
    pattern = root / "*" / "train.tar"
    first, _ = open_("tar", pattern)
    again, was_kept = open_("tar", pattern)
    assert was_kept
    assert contents(again) == contents(first)
    times = (root / "0/train.tar").stat()
    write("0/train.tar", 0)
    os.utime(root / "0/train.tar", ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync does
    after, was_kept = open_("tar", pattern)
    assert not was_kept
    assert after.read(0)[1] == 0
    assert open_("tar", pattern)[1]
    write("1/train.tar", 1)
    assert len(open_("tar", pattern)[0]) == 2


@pytest.mark.parametrize("harm", ["cut short", "no npz", "other ends", "pickled"])
def test_a_damaged_listing_is_made_again(
    folder: Path, open_, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    first, _ = open_("folder", folder)
    (file,) = (tmp_path / "listings").iterdir()
    with np.load(file) as found:
        arrays = dict(found)
    match harm:
        case "cut short":
            file.write_bytes(file.read_bytes()[:300])
        case "no npz":
            file.write_text("{}")
        case "other ends":
            np.savez(file, **arrays | {"ends": arrays["ends"] + 1})
        case "pickled":
            np.savez(file, **arrays | {"numbers": np.array([{}, None])})
    again, was_kept = open_("folder", folder)
    assert not was_kept
    assert contents(again) == contents(first)
    assert "listing again" in caplog.text
    assert open_("folder", folder)[1]


def test_where_it_cannot_be_kept_it_is_not(
    folder: Path, open_, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "listings").write_text("a file")
    assert len(open_("folder", folder)[0]) == 3
    assert f"the listing of {folder} cannot be kept" in caplog.text


def test_a_bucket_that_cannot_be_reached_only_costs_the_listing(
    folder: Path, open_, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = open_("folder", folder)

    def fail(paths: object) -> np.ndarray:
        raise StorageError("UNAVAILABLE")

    monkeypatch.setattr(listing_cache, "_stamps", fail)
    assert contents(open_("folder", folder)[0]) == contents(first)
    assert "cannot be used (UNAVAILABLE)" in caplog.text
    assert "cannot be kept (UNAVAILABLE)" in caplog.text


def test_what_has_just_changed_is_not_kept(folder: Path, open_, monkeypatch) -> None:
    """Another change in the same tick of the clock would not show in its times."""
    monkeypatch.setattr(listing_cache, "SETTLED_SECONDS", 60.0)
    open_("folder", folder)
    assert not open_("folder", folder)[1]
