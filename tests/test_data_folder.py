"""The reader of one directory per class, and paths that do not hold what was expected."""

import logging
import os

import pytest
from support.image_files import check_reader, check_stream, encoded, images_of

from rae_dit.data import folder
from rae_dit.data.files import Images, SourceError
from rae_dit.data.folder import class_directories, open_folder
from rae_dit.data.position import ChangedDataError, check_position, position

# Upper and lower case, an unsorted order, and names that must be passed over.
_FILES = [
    ("cat", "b.PNG", "PNG"),
    ("cat", "a.jpg", "JPEG"),
    ("ant", "1.JPEG", "JPEG"),
    ("ant", "10.webp", "WEBP"),
    ("ant", "2.bmp", "BMP"),
    ("dog é", "ü.png", "PNG"),
    ("dog é", "v.png", "PNG"),
    ("dog é", "w.png", "PNG"),
]
_IN_ORDER = [2, 3, 4, 1, 0, 6, 7, 5]  # by bytes: ü comes after all letters
_LABELS = [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.fixture
def root(tmp_path):
    for number, (label, name, kind) in enumerate(_FILES):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_bytes(encoded(number, kind))
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / ".hidden.jpg").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "labels.csv").write_text("no directory")
    return tmp_path


def test_files_come_sorted_with_the_place_of_their_class_as_label(root):
    files = open_folder(str(root), 3)
    wanted = [encoded(number, _FILES[number][2]) for number in _IN_ORDER]
    check_reader(files, list(zip(wanted, _LABELS, strict=True)))
    assert files.name(3) == str(root / "cat" / "a.jpg")
    assert files.classes == ("ant", "cat", "dog é")


def test_what_is_left_out_is_counted_by_kind(root):
    listing = open_folder(str(root), 3).listing
    assert listing.remarks == ("left out: 2 hidden, 1 .csv, 1 .txt",)
    assert (listing.files, listing.classes) == (8, ("ant", "cat", "dog é"))


def test_fingerprints_are_those_of_earlier_versions(tmp_path):
    for name in ("ant/1.JPEG", "ant/10.webp", "ant/2.bmp", "cat/a.jpg", "cat/b.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert open_folder(str(tmp_path), 2).fingerprint == "folder/5/1679503e95ac"  # by c46889a


def test_a_run_of_before_more_was_read_is_told_what_is_more(tmp_path):
    """The same names as above, by c46889a, and two that it did not list."""
    for name in ("1.JPEG", "10.webp", "2.bmp", "more/3.png", "4.tif"):
        (tmp_path / "ant" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "ant" / name).write_bytes(encoded(0, "PNG"))
    (tmp_path / "cat").mkdir()
    for name in ("a.jpg", "b.PNG"):
        (tmp_path / "cat" / name).write_bytes(encoded(0, "PNG"))
    source = Images(open_folder(str(tmp_path), 2), 8, 2, "adm_center", 0.0)
    now = position(source, step=1, seed=0, batch_size=2)
    saved = now | {"fingerprint": "folder/5/1679503e95ac/8/adm_center"}
    with pytest.raises(ChangedDataError) as caught:
        check_position(saved, now, source)
    assert (
        ". The run began when 2 images in directories below those of the classes, or with endings "
        "other than *.jpg *.jpeg *.png *.webp *.bmp were not read. Move those elsewhere, or start "
    ) in str(caught.value)
    with pytest.raises(ChangedDataError, match="Files were added, removed or renamed since, or"):
        check_position(saved | {"fingerprint": "folder/5/0/8/adm_center"}, now, source)
    check_position(now, now, source)


def in_order_of_image_folder(root, endings) -> list[str]:
    """Paths and labels as `torchvision.datasets.folder.make_dataset` lists them."""
    found = []
    for label in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        for path, _, names in sorted(os.walk(root / label, followlinks=True)):
            found += [os.path.join(path, n) for n in sorted(names) if n.lower().endswith(endings)]
    return found


def test_images_in_directories_of_a_class_are_those_of_image_folder(tmp_path):
    kinds = ["0.jpg", "scene.tif", "b.TIFF", "c.ppm", "x.gif", "notes.txt"]
    for path in ("forest", "forest/more", "forest/more/deep", "forest/more-", "river/i"):
        (tmp_path / path).mkdir(parents=True)
        for name in kinds:
            (tmp_path / path / name).write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path.parent / "elsewhere")
    (tmp_path.parent / "elsewhere" / "linked.jpg").write_bytes(b"")
    (tmp_path / "river" / "link").symlink_to(tmp_path.parent / "elsewhere")
    files = open_folder(str(tmp_path), 2)
    wanted = in_order_of_image_folder(tmp_path, (".jpg", ".tif", ".tiff", ".ppm", ".gif"))
    assert [files.name(index) for index in range(len(files))] == wanted
    assert len(wanted) == 26
    assert files.listing.remarks == ("left out: 5 .txt",)


def test_a_link_to_a_directory_above_does_not_lead_in_circles(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "over").symlink_to(tmp_path / "a")  # which leads up, too
    files = open_folder(str(tmp_path), 2)
    assert [os.path.relpath(files.name(i), tmp_path) for i in range(3)] == [
        "a/x.jpg", "b/x.jpg", "b/over/x.jpg"]  # fmt: skip
    assert files.listing.remarks == ("left out: 2 link to a directory above it",)


def test_directories_named_by_numbers_are_sorted_as_asked(tmp_path):
    for number in range(11):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "0.jpg").write_bytes(b"")
    as_strings = open_folder(str(tmp_path), 11)
    assert as_strings.classes[2] == "10"
    (remark,) = as_strings.listing.remarks
    assert remark == (
        "classes are numbers sorted as strings: '10' is label 2; "
        "data.numeric_classes=True sorts them as numbers"
    )
    files = open_folder(str(tmp_path), 11, numeric_classes=True)
    assert files.classes == tuple(map(str, range(11)))
    assert files.listing.remarks == ()
    assert files.fingerprint != as_strings.fingerprint
    (tmp_path / "10").rename(tmp_path / "ten")
    with pytest.raises(SourceError, match="the class 'ten'; expected whole numbers because"):
        open_folder(str(tmp_path), 11, numeric_classes=True)


def test_the_stream_is_elastic(root):
    check_stream(open_folder(str(root), 3))


def test_the_fingerprint_is_that_of_the_names(root, tmp_path_factory):
    before = open_folder(str(root), 3).fingerprint
    moved = root.rename(tmp_path_factory.mktemp("elsewhere") / "images")
    assert open_folder(str(moved), 3).fingerprint == before
    (moved / "cat" / "c.png").write_bytes(encoded(0))
    added = open_folder(str(moved), 3).fingerprint
    (moved / "cat" / "c.png").rename(moved / "dog é" / "c.png")
    assert len({before, added, open_folder(str(moved), 3).fingerprint}) == 3


def test_a_file_that_vanished_is_replaced(root):
    source = images_of(open_folder(str(root), 3))
    (root / "cat" / "a.jpg").unlink()
    assert source[3]["replaced"]
    assert "No such file" in source.damage(3)


def test_a_long_listing_reports(root, monkeypatch, caplog):
    monkeypatch.setattr(folder, "_REPORT_EVERY", 4)
    with caplog.at_level(logging.INFO, "rae_dit"):
        open_folder(str(root), 3)
    reports = [record.getMessage() for record in caplog.records]
    assert [report.split(": ")[1] for report in reports] == ["5 images so far", "8 images so far"]


def test_a_wrong_path_says_what_is_there(root):
    def refused(path, num_classes=3):
        with pytest.raises(SourceError) as caught:
            open_folder(str(path), num_classes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    expected = "expected a directory with one directory of images per class"
    assert refused("") == f"got ''; {expected}"
    missing = refused(root / "train" / "x")
    assert f"which does not exist ({root} holds 1 file (labels.csv) and 4 directories (" in missing
    assert expected in missing
    assert f"which is a file; {expected}" in refused(root / "labels.csv")
    assert "holds 4 files (.hidden.jpg, a.jpg, b.PNG, notes.txt); expected" in refused(root / "cat")
    message = refused(root, num_classes=1000)
    assert "1 file (labels.csv) and 4 directories (.cache, ant, cat, dog é)" in message
    assert message.endswith("and data.num_classes = 1000 of them")
    (root / "cow").mkdir()
    assert "the class 'cow' holds nothing; expected images in it" in refused(root, num_classes=4)
    (root / "cow" / "x.txt").write_text("")
    assert "the class 'cow' holds 1 file (x.txt); expected" in refused(root, num_classes=4)


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Validation", "test"), ("train",)])
def test_splits_are_not_classes(names, tmp_path):
    above = tmp_path / "whole"
    for name in names:
        (above / name / "ant").mkdir(parents=True)
        (above / name / "ant" / "a.png").write_bytes(encoded(0, "PNG"))
    found = ", ".join(sorted(names))
    for opening in (
        lambda: open_folder(str(above), len(names)),
        lambda: class_directories(above, numeric_classes=False),
    ):
        with pytest.raises(SourceError) as caught:
            opening()
        assert f"whose directories are splits ({found}); expected one directory of" in str(
            caught.value
        )
        assert str(caught.value).endswith(f"such as those in {str(above / names[0])!r}")
    assert len(open_folder(str(above / names[0]), 1)) == 1
    (above / "ant").mkdir()
    (above / "ant" / "a.png").write_bytes(encoded(0, "PNG"))
    assert len(open_folder(str(above), len(names) + 1)) == len(names) + 1  # a class's name, too
