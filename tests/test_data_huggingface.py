"""The reader of parquet and arrow shards."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from support.image_files import check_reader, check_stream, encoded, images_of
from support.parquet_files import _STRUCT, named, table, write_shard

from rae_dit.data.files import SourceError
from rae_dit.data.huggingface import open_huggingface
from rae_dit.data.lru_cache import LRUCache


def wanted(count: int) -> list[tuple[bytes, int]]:
    return [(encoded(n, "JPEG"), n % 3) for n in range(count)]


@pytest.mark.parametrize("kind", ["data.parquet", "data.arrow", "file.arrow"])
@pytest.mark.parametrize("nested", [True, False])
def test_rows_come_in_the_order_of_the_shards(tmp_path, kind, nested):
    stem, suffix = kind.split(".")
    write_shard(tmp_path / f"{stem}-00000-of-00002.{suffix}", table(range(7), nested=nested))
    write_shard(tmp_path / f"{stem}-00001-of-00002.{suffix}", table(range(7, 11), nested=nested))
    (tmp_path / "dataset_info.json").write_text("{}")
    files = open_huggingface(str(tmp_path))
    check_reader(files, wanted(11))
    assert files.name(8) == f"{tmp_path}/{stem}-00001-of-00002.{suffix}: row 1"
    for index in (10, 0, 5, 2, 9, 3):  # any order
        assert files.read(index) == wanted(11)[index]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_stream_is_elastic(tmp_path, suffix):
    write_shard(tmp_path / f"train-0.{suffix}", table(range(9)))
    check_stream(open_huggingface(str(tmp_path)))


def test_no_more_than_a_row_group_is_read_for_a_row(tmp_path):
    write_shard(tmp_path / "a.parquet", table(range(9)), rows=2)
    files = open_huggingface(str(tmp_path))
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    start = content.index(encoded(2, "JPEG"))  # row 2 is in the second group
    content[start - 8 : start + 900] = bytes(908)
    (tmp_path / "a.parquet").write_bytes(content)
    assert files.read(1) == wanted(2)[1]
    assert files.read(8) == wanted(9)[8]


def test_a_damaged_row_group_counts_as_damaged_images(tmp_path):
    write_shard(tmp_path / "a.parquet", table(range(12)), rows=3)
    source = images_of(open_huggingface(str(tmp_path)))
    path = tmp_path / "a.parquet"
    place = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 40] = b"\xff" * 40
    path.write_bytes(content)
    assert [source[index]["replaced"] for index in range(12)] == [3 <= i < 6 for i in range(12)]
    assert "row group 1 is damaged: " in source.damage(4)


def test_offsets_that_leave_an_arrow_file_damage_the_rows_of_its_batch(tmp_path):
    """The file is mapped; pyarrow would follow them out of it, and the process would die."""
    write_shard(tmp_path / "a.arrow", table(range(6)), rows=6)
    lengths = [len(encoded(n, "JPEG")) for n in range(6)]
    offsets = np.cumsum([0, *lengths]).astype("<i4")
    content = (tmp_path / "a.arrow").read_bytes()
    assert content.count(offsets.tobytes()) == 1
    wrong = offsets.copy()
    wrong[3] = -(2**30)
    (tmp_path / "a.arrow").write_bytes(content.replace(offsets.tobytes(), wrong.tobytes()))
    files = open_huggingface(str(tmp_path))
    for row in range(6):
        with pytest.raises(OSError, match="row group 0 is damaged: "):
            files.read(row)


def test_rows_without_image_or_label_are_named(tmp_path):
    images = [{"bytes": None, "path": "x.jpg"}, None, {"bytes": encoded(0), "path": None}]
    content = {"image": pa.array(images, _STRUCT), "label": pa.array([0, 1, None], pa.int64())}
    write_shard(tmp_path / "a.parquet", pa.table(content))
    source = images_of(open_huggingface(str(tmp_path)))
    assert source.damage(0) == "the row holds no bytes, but the path 'x.jpg'"
    assert source.damage(1) == "the row holds no bytes"
    with pytest.raises(ValueError, match=r"a.parquet: row 2: got label -1; expected 0\.\.2"):
        source[2]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"image": "jpg", "label": "cls"}, ("jpg", "cls")),  # the only ones of their types
        ({"more": [("id", pa.array([7] * 4))]}, ("image", "label")),  # preferred by name
        ({"more": [("mask", pa.array([b"x"] * 4))]}, ("image", "label")),
    ],
)
def test_columns_are_found_by_name_or_type(tmp_path, names, found):
    write_shard(tmp_path / "a.parquet", table(range(4), **names))
    files = open_huggingface(str(tmp_path))
    assert (files.columns.image, files.columns.label) == found
    check_reader(files, wanted(4))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "file.arrow"])
def test_paths_in_place_of_images_are_said_when_it_is_opened(tmp_path, name):
    images = pa.array([{"bytes": None, "path": f"{n}.jpg"} for n in range(4)], _STRUCT)
    labels = pa.array([0, 1, 2, 0], pa.int64())
    write_shard(tmp_path / name, pa.table({"image": images, "label": labels}))
    message = refused(tmp_path)
    assert "whose 4 rows hold paths and no image; expected images inside of the files" in message
    assert "embed_table_storage" in message


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_rows_without_an_image_are_counted_when_it_is_opened(tmp_path, name):
    images = [{"bytes": None, "path": "x"}, None, {"bytes": encoded(0, "JPEG"), "path": "y"}]
    content = {"image": pa.array(images, _STRUCT), "label": pa.array([0, 1, 2], pa.int64())}
    write_shard(tmp_path / name, pa.table(content))
    (remark,) = open_huggingface(str(tmp_path)).listing.remarks
    assert remark == "2 rows hold no image; they count as damaged"


def test_the_labels_of_parquet_files_are_known_when_they_are_opened(tmp_path):
    write_shard(tmp_path / "a.parquet", table(range(2)))
    write_shard(tmp_path / "b.parquet", table(range(2, 5)))
    assert open_huggingface(str(tmp_path)).listing.labels == (0, 2)


def test_class_names_that_are_numbers_sorted_as_strings_are_said(tmp_path):
    """As `datasets` names them when it reads a folder of numbers."""
    write_shard(tmp_path / "a.parquet", named(table(range(3)), ["0", "10", "2"]))
    (remark,) = open_huggingface(str(tmp_path)).listing.remarks
    assert remark == "classes are numbers sorted as strings: '10' is label 1"


def test_shards_of_other_class_names_are_refused(tmp_path):
    for name, classes in (("a", ["cat", "dog", "cow"]), ("b", ["dog", "cat", "cow"])):
        write_shard(tmp_path / f"{name}.parquet", named(table(range(3)), classes))
    message = refused(tmp_path)
    assert "b.parquet' with the classes dog, cat, cow; expected cat, dog, cow as in a.p" in message
    assert open_huggingface(str(tmp_path / "a*")).listing.classes == ("cat", "dog", "cow")


def refused(path) -> str:
    with pytest.raises(SourceError) as caught:
        open_huggingface(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        {"image": "a", "more": [("b", pa.array([b"x"] * 4))]},
        {"label": "a", "more": [("b", pa.array([1] * 4))]},
    ],
)
def test_columns_that_could_be_either_are_listed(tmp_path, names):
    write_shard(tmp_path / "a.parquet", table(range(4), **names))
    message = refused(tmp_path)
    assert "a.parquet' with the columns " in message
    assert "a (" in message
    assert "b (" in message
    assert message.endswith(
        "expected 'image' (bytes, or a struct with bytes) and 'label' (integer)"
    )


def test_missing_columns_are_listed(tmp_path):
    write_shard(tmp_path / "a.parquet", pa.table({"text": ["x"], "label": [1]}))
    assert "with the columns text (string), label (int64); expected 'image'" in refused(tmp_path)


def test_a_wrong_path_says_what_is_there(tmp_path):
    expected = "expected a directory of *.parquet or *.arrow files"
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("")
    found = "which holds 1 file (README.md) and 1 directory (data)"
    assert f"{found}; {expected}" in refused(tmp_path)
    write_shard(tmp_path / "data" / "train-0.parquet", table(range(2)))
    write_shard(tmp_path / "data" / "validation-0.parquet", table(range(2)))
    write_shard(tmp_path / "data" / "test-0.parquet", table(range(2)))
    assert "of the splits test, train, validation; expected one split" in refused(tmp_path / "data")
    assert len(open_huggingface(str(tmp_path / "data" / "train-*"))) == 2
    write_shard(tmp_path / "data" / "train-1.arrow", table(range(2)))
    assert "with .arrow, .parquet files; expected files of one" in refused(tmp_path / "data/train*")


def test_a_shard_that_differs_or_is_cut_off_is_named(tmp_path):
    write_shard(tmp_path / "a.parquet", table(range(4)))
    write_shard(tmp_path / "b.parquet", table(range(4), nested=False))
    assert "b.parquet' with Columns(" in refused(tmp_path)
    for name in ("b.parquet", "b.arrow"):
        write_shard(tmp_path / name, table(range(4)))
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        message = refused(tmp_path / name)
        assert f"{name}', which cannot be read (" in message
        assert message.endswith(f"expected a whole {name[2:]} file")


def test_the_fingerprint_is_that_of_the_shards(tmp_path):
    write_shard(tmp_path / "a.parquet", table(range(4)))
    before = open_huggingface(str(tmp_path)).fingerprint
    assert open_huggingface(str(tmp_path)).fingerprint == before
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    renamed = open_huggingface(str(tmp_path)).fingerprint
    write_shard(tmp_path / "c.parquet", table(range(4)))
    assert len({before, renamed, open_huggingface(str(tmp_path)).fingerprint}) == 3


def test_recent_keeps_the_last_few():
    made = []
    recent = LRUCache[int](2)
    for key in (1, 2, 1, 3, 1, 2):
        assert recent.get(key, lambda key=key: made.append(key) or key) == key
    assert made == [1, 2, 3, 2]  # 2 made room for 3, and 1 stayed because it was used


def test_recent_keeps_what_weighs_little_enough_and_the_last_one():
    made = []
    recent = pickle.loads(pickle.dumps(LRUCache[bytes](5, len)))
    for value in (b"aa", b"bbb", b"aa", b"cc", b"bbb", b"a" * 9, b"a" * 9, b"cc"):
        assert recent.get(value, lambda value=value: made.append(value) or value) == value
    assert made == [b"aa", b"bbb", b"cc", b"bbb", b"a" * 9, b"cc"]


def test_threads_that_want_the_same_wait_for_one():
    made, recent, threads = [], LRUCache[int](2), 8
    together = threading.Barrier(threads)

    def make():
        made.append(1)
        time.sleep(0.05)
        return 7

    def want(_):
        together.wait()
        return recent.get(1, make)

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(want, range(threads))) == [7] * threads
    assert made == [1]
    with pytest.raises(OSError, match="lost"):
        recent.get(2, lambda: (_ for _ in ()).throw(OSError("lost")))
    assert recent.get(2, lambda: 8) == 8  # a failure is not kept
