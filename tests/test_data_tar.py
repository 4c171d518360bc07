"""The reader of tar shards."""

import pytest
from support.image_files import check_reader, check_stream, encoded
from support.tar_files import record, write_tar

from rae_dit.data.files import SourceError
from rae_dit.data.tar import open_tar


@pytest.fixture
def root(tmp_path):
    # The label first, another kind of the same key, a directory, a name longer than a header.
    first = [*record(0, "000"), *reversed(record(1, "001")), ("001.seg.png", b""), ("d", None)]
    write_tar(tmp_path / "train-000.tar", [*first, *record(2, "d/" + 120 * "x", "jpeg")])
    write_tar(tmp_path / "train-001.tar", [m for n in (3, 4, 5) for m in record(n, f"{n}", "PNG")])
    (tmp_path / "index.txt").write_text("passed over")
    return tmp_path


def wanted() -> list[tuple[bytes, int]]:
    return [(encoded(n, "JPEG" if n < 3 else "PNG"), n % 3) for n in range(6)]


def test_records_come_in_the_order_of_shards_and_members(root):
    files = open_tar(str(root))
    check_reader(files, wanted())
    assert files.name(1) == f"{root / 'train-000.tar'}: 001"
    assert files.name(2) == f"{root / 'train-000.tar'}: d/{120 * 'x'}"


def test_a_pattern_or_a_file_takes_a_part(root):
    check_reader(open_tar(str(root / "*-001.tar")), wanted()[3:])
    check_reader(open_tar(str(root / "train-000.tar")), wanted()[:3])


def test_the_stream_is_elastic(root):
    check_stream(open_tar(str(root)))


def test_the_fingerprint_is_that_of_the_members(root):
    before = open_tar(str(root)).fingerprint
    assert open_tar(str(root)).fingerprint == before
    write_tar(root / "train-001.tar", [m for n in (3, 5, 4) for m in record(n, f"{n}", "PNG")])
    assert open_tar(str(root)).fingerprint != before


def refused(path) -> str:
    with pytest.raises(SourceError) as caught:
        open_tar(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_path_says_what_is_there(root):
    assert "got ''; expected a directory of *.tar files" in refused("")
    assert "which matches 0 files; expected a directory of *.tar" in refused(root / "val-*")
    (root / "none").mkdir()
    assert "which holds nothing; expected a directory of *.tar files" in refused(root / "none")
    assert "the file " in refused(root / "index.txt")
    write_tar(root / "validation-000.tar", record(9, "9"))
    message = refused(root)
    assert "of the splits train, validation; expected one split; give a pattern" in message
    assert message.endswith(f"'{root}/train*'")
    assert len(open_tar(str(root / "train*"))) == 6


def test_keys_with_dots_are_records_and_other_members_are_counted(tmp_path):
    keys = ["000", "photo v2.0 (1)", "a/n01440764_18.full", "d.e/f", "g.h"]
    members = [m for n, key in enumerate(keys) for m in record(n, key)]
    others = [("000.seg.png", b""), ("000.json", b""), ("x.mask.png", b""), ("._a.jpg", b"")]
    write_tar(tmp_path / "x.tar", [*others[:1], *members, *others[1:]])
    files = open_tar(str(tmp_path))
    check_reader(files, [(encoded(n, "JPEG"), n % 3) for n in range(5)])
    assert [files.keys[n].decode() for n in range(5)] == keys
    assert files.listing.remarks == (
        "left out: 1 .json, 1 .mask.png, 1 .seg.png, 1 hidden",
        "3 keys hold dots; their kind begins at the last one",
    )
    assert files.listing.labels == (0, 2)


def test_the_fingerprint_is_that_of_earlier_versions(tmp_path):
    write_tar(
        tmp_path / "a.tar", [("0.jpg", b"x"), ("0.cls", b"1"), ("d/1.png", b"y"), ("d/1.cls", b"0")]
    )
    assert open_tar(str(tmp_path)).fingerprint == "tar/2/fbe4e4403e5a"  # by c46889a


@pytest.mark.parametrize(
    ("members", "both"),
    [
        ([*record(0, "a"), *record(0, "a")[:1]], "'a.jpg' and 'a.jpg'"),
        ([*record(0, "a"), *record(0, "a", "PNG")[:1]], "'a.jpg' and 'a.PNG'"),
        ([*record(0, "a"), *record(0, "a")[1:]], "'a.cls' and 'a.cls'"),
        ([*record(0, "a.b"), *record(0, "a.b", "PNG")[:1]], "'a.b.jpg' and 'a.b.PNG'"),
    ],
)
def test_two_images_or_labels_of_a_key_are_refused_as_by_webdataset(tmp_path, members, both):
    write_tar(tmp_path / "x.tar", members)
    assert f"which holds both {both}; expected one image" in refused(tmp_path)


@pytest.mark.parametrize(
    ("members", "parts"),
    [
        (record(0, "a")[:1], ["1 images, 0 labels and the kinds ['jpg']", "'a' has but one"]),
        (record(0, "a")[1:], ["0 images, 1 labels", "'a' has but one"]),
        ([("a.txt", b"x")], ["0 images, 0 labels and the kinds ['txt']; expected members KEY.jpg"]),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], ["a.cls holds b'cat'; expected a label"]),
        ([], ["0 images"]),
    ],
)
def test_members_that_are_no_records_are_named(tmp_path, members, parts):
    write_tar(tmp_path / "x.tar", members)
    message = refused(tmp_path)
    assert all(part in message for part in [str(tmp_path / "x.tar"), *parts]), message


def test_a_shard_that_is_cut_off_or_compressed_is_named(root):
    whole = (root / "train-001.tar").read_bytes()
    (root / "train-001.tar").write_bytes(whole[: len(whole) // 4])
    message = refused(root)
    assert "train-001.tar', which cannot be read to its end (" in message
    assert message.endswith("expected an uncompressed, whole tar file")
    write_tar(root / "train-001.tar", record(3, "3"), "w:gz")
    assert "train-001.tar', which cannot be read to its end (" in refused(root)
