"""Names of classes: where each source keeps them, and how a user's names find them."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from rae_dit.data.class_files import read_names, short_name
from rae_dit.data.classes import match_names, stored_names
from rae_dit.data.files import SourceError

IMAGENET = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane", "drake")


FOUR = ("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark", "tiger shark")
IDS = ("n01440764", "n01443537", "n01484850", "n01491361")


def test_folders_are_named_as_the_reader_numbers_them(tmp_path):
    for name in ("b", "a", "c", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("no class")
    assert stored_names("folder", str(tmp_path)) == ("a", "b", "c")


def test_folders_named_by_numbers_are_in_the_order_of_the_reader(tmp_path):
    for name in ("0", "2", "10"):
        (tmp_path / name).mkdir()
    assert stored_names("folder", str(tmp_path)) == ("0", "10", "2")
    assert stored_names("folder", str(tmp_path), numeric_classes=True) == ("0", "2", "10")


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_names_in_the_schema_of_a_hugging_face_shard(tmp_path, suffix):
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    description = json.dumps({"info": {"features": features}})
    table = pa.table({"image": [b"x"], "label": [0]})
    table = table.replace_schema_metadata({"huggingface": description})
    path = tmp_path / f"train.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    assert stored_names("huggingface", str(tmp_path)) == ("cat", "dog")


def test_a_shard_without_names(tmp_path):
    pyarrow.parquet.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / "a.parquet")
    assert stored_names("huggingface", str(tmp_path)) is None


def test_tfds_lists_names_beside_its_records(tmp_path):
    assert stored_names("tfds", str(tmp_path)) is None
    (tmp_path / "label.labels.txt").write_text("cat\ndog\n")
    assert stored_names("tfds", f"{tmp_path}#train") == ("cat", "dog")


def test_tar_files_tell_no_names():
    assert stored_names("tar", "anything") is None


def test_a_file_of_names_may_have_blank_lines_and_a_byte_order_mark(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xef\xbb\xbfcat \r\n\r\n  dog\n")
    assert read_names(file) == ("cat", "dog")


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"{i} {name}\n" for i, name in zip(IDS, FOUR, strict=True)),  # Kaggle, caffe
        "".join(f"{i}: {name}\n" for i, name in enumerate(FOUR)),
        "n01491361 1 tiger_shark\nn01440764 2 tench\nn01484850 3 great_white_shark\n"
        "n01443537 4 goldfish\n",  # the devkit's order is not that of the labels
        repr(dict(enumerate(FOUR))),
        json.dumps(FOUR),
        json.dumps(
            {str(i): [IDS[i], FOUR[i].split(",")[0].replace(" ", "_")] for i in (2, 0, 1, 3)}
        ),
        json.dumps({name: i for i, name in enumerate(FOUR)}, indent=1),
        json.dumps([name.split(", ") for name in FOUR]),
    ],
)
def test_the_forms_of_class_files_mean_the_same(tmp_path, content):
    file = tmp_path / "names.txt"
    file.write_text(content)
    names = read_names(file)
    assert [short_name(n) for n in names] == [
        "tench",
        "goldfish",
        "great white shark",
        "tiger shark",
    ]
    assert match_names(("tench", "tiger_shark", "GOLDFISH"), names) == (0, 3, 1)
    if "n0" in content:
        assert match_names(("n01484850", "n01440764 tench"), names) == (2, 0)
    if "Tinca" in content:
        assert match_names(("Tinca tinca", FOUR[0]), names) == (0, 0)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("n01491361 tiger shark\nn01440764 tench\n", "n01491361 stands before n01440764"),
        ("1 tench\n2 goldfish\n", "whose line 1 is '1 tench'"),
        ("id,name\n0,tench\n1,goldfish\n", "whose first line 'id,name' is unlike all others"),
        ("wnid,name\nn01440764,tench\nn01443537,goldfish\n", "first line 'wnid,name' is unlike"),
        ("{0: 'tench', 2: 'x'}", r"a dictionary of 2 entries that begins with \(0, 'tench'\)"),
        ("{0: 'tench', 0.5: 'x'}", "a dictionary of 2 entries"),
        ("{}", "which holds an? .*dict"),
        ("{'tench', 'x'}", "which holds a set"),
        ("[1, 2]", "where label 0 is '1'"),
        ("{0: 'tench'", "neither JSON nor a Python list"),
        ("[" * 100_000, "neither JSON nor a Python list"),
        ("x" * 2000, "a line of 2,000 characters"),
    ],
)
def test_other_forms_are_refused_with_what_was_seen(tmp_path, content, seen):
    file = tmp_path / "names.txt"
    file.write_text(content)
    with pytest.raises(SourceError, match=seen) as caught:
        read_names(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\xff"])
def test_a_file_without_names_is_refused(tmp_path, content):
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"names.txt.* expected a text file with one class name"):
        read_names(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="No such file or directory"):
        read_names(tmp_path / "none.txt")


def test_names_match_whole_or_by_one_synonym_whatever_their_capitals():
    wanted = ("Goldfish", "tench, tinca tinca", "TINCA TINCA", "drake")
    assert match_names(wanted, IMAGENET) == (1, 0, 0, 4)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(SourceError) as caught:
        match_names(("goldfsh",), IMAGENET)
    assert "got 'goldfsh', which no class is named; the nearest are" in str(caught.value)
    assert "'goldfish, Carassius auratus'" in str(caught.value)
    with pytest.raises(SourceError, match="classes are named like 'tench, Tinca tinca'"):
        match_names(("zzzzzz",), IMAGENET)


def test_a_name_of_two_classes_is_refused():
    """ImageNet has two cranes, and two maillots."""
    with pytest.raises(SourceError, match=r"names the classes 2 \(crane\), 3 \(crane\)"):
        match_names(("crane",), IMAGENET)
    known = ("maillot", "maillot, tank suit")
    assert match_names(("maillot", "tank suit"), known) == (0, 1)
