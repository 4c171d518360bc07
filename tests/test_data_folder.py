"""The reader of one directory per class, and paths that do not hold what was expected."""

import logging

import pytest
from support.image_files import check_reader, check_stream, encoded, images_of

from rae_dit.data import folder
from rae_dit.data.files import SourceError
from rae_dit.data.folder import open_folder

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
    assert "the class 'cow' holds nothing; expected *.jpg" in refused(root, num_classes=4)
    (root / "cow" / "x.txt").write_text("")
    assert "the class 'cow' holds 1 file (x.txt); expected" in refused(root, num_classes=4)
