"""The reader of TFDS data sets; the tests write one without tensorflow."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from support.image_files import check_reader, check_stream, encoded, images_of
from support.tfds_files import write_tfds

from rae_dit.data.files import SourceError
from rae_dit.data.tfds import open_tfds


@pytest.fixture
def root(tmp_path):
    return write_tfds(tmp_path, {"train": range(9), "validation": range(9, 12)})


def wanted(numbers) -> list[tuple[bytes, int]]:
    return [(encoded(n, "JPEG"), n % 3) for n in numbers]


def test_records_come_in_order_and_encoded(root):
    files = open_tfds(str(root), "train")
    check_reader(files, wanted(range(9)))
    assert files.name(4) == f"{root}#train: record 4"


def test_a_split_or_a_part_can_be_chosen(root):
    check_reader(open_tfds(str(root), "validation"), wanted(range(9, 12)))
    check_reader(open_tfds(f"{root}#validation", "train"), wanted(range(9, 12)))
    check_reader(open_tfds(f"{root}#train[3:6]", "train"), wanted(range(3, 6)))


def test_the_stream_is_elastic(root):
    check_stream(open_tfds(str(root), "train"))


def test_splits_and_parts_have_fingerprints_of_their_own(root):
    paths = [f"{root}#{split}" for split in ("train", "validation", "train[3:6]", "train[6:9]")]
    assert len({open_tfds(path, "train").fingerprint for path in paths}) == 4


def test_tensorflow_is_not_imported(root):
    code = (
        "import sys; from rae_dit.data.tfds import open_tfds; "
        f"open_tfds({str(root)!r}, 'train').read(0); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def refused(path, split="train") -> str:
    with pytest.raises(SourceError) as caught:
        open_tfds(str(path), split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_path_says_what_is_there(root):
    expected = "expected the directory of one version of a prepared TFDS data set"
    assert f"got ''; {expected}" in refused("")
    assert f"which holds 1 directory (1.0.0); {expected}" in refused(root.parent)
    assert "which does not exist (" in refused(root / "x" / "y")
    message = refused(root, "test")
    assert "which has the splits train, validation; expected 'test'" in message
    assert message.endswith(f"choose one as '{root}#SPLIT'")
    assert "has 0 records" in refused(f"{root}#train[0:0]")


def test_files_without_random_access_are_refused(tmp_path):
    path = write_tfds(tmp_path, {"train": range(2)}, kind="tfrecord")
    message = refused(path)
    assert "whose files are tfrecord; expected array_record" in message
    assert "download_and_prepare(file_format='array_record')" in message


def test_features_are_found_by_type_or_listed(tmp_path):
    path = write_tfds(tmp_path / "a", {"train": range(3)}, image="picture")
    check_reader(open_tfds(str(path), "train"), wanted(range(3)))
    path = write_tfds(
        tmp_path / "b", {"train": []}, image="left", more={"right": tfds.features.Image()}
    )
    message = refused(path)
    assert "with the features label (ClassLabel), left (Image), right (Image)" in message
    assert "expected one 'image' (Image)" in message


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_files_are_one_line(root, name):
    (file,) = root.glob(name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    message = refused(root)
    assert f"got '{root}', which cannot be read (" in message
    assert "expected the directory of one version" in message


def test_a_file_that_is_cut_off_is_one_line(root):
    (file,) = root.glob("tiny-train*")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        SourceError, match=r"^none of 16 files .*: the record is damaged: "
    ) as caught:
        images_of(open_tfds(str(root), "train"))[0]
    assert "\n" not in str(caught.value)


def test_a_damaged_record_is_replaced(root):
    (file,) = root.glob("tiny-train*")
    files = open_tfds(str(root), "train")
    content = bytearray(file.read_bytes())
    place = content.index(encoded(4, "JPEG")[-400:-336])
    content[place : place + 64] = bytes(64)
    file.write_bytes(content)
    source = images_of(open_tfds(str(root), "train"))
    assert [source[n]["replaced"] for n in range(len(files))] == [n == 4 for n in range(9)]
