"""Files in a bucket behave as those on a disk, and its failures are one line each."""

import logging
import os
import pickle
import time
from pathlib import Path

import pytest

from rae_dit.storage.errors import StorageError
from rae_dit.storage.files import (
    check_writable,
    first_unwritable,
    replacing,
    write_json,
    write_text,
)
from rae_dit.storage.places import check_output, is_url, local_place, place
from rae_dit.storage.reading import local_copy, open_binary, paths_below, read_range


@pytest.fixture(params=["disk", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty directory of either kind."""
    if request.param == "disk":
        return tmp_path
    return place(f"{request.getfixturevalue('bucket').url}/{tmp_path.name}-{time.time_ns()}")


def test_paths_of_either_kind_do_the_same(root: Path) -> None:
    assert not list(root.iterdir())
    assert not (root / "a").exists()
    write_text(root / "a", "é\n")
    write_json(root / "b" / "c.json", [1])
    with replacing(root / "b" / "d.bin") as temporary:
        temporary.write_bytes(bytes(range(256)))
    assert (root / "a").read_text() == "é\n"
    assert (root / "b" / "c.json").read_bytes() == b"[\n  1\n]\n"
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]
    assert sorted(path.name for path in (root / "b").glob("*.json")) == ["c.json"]
    assert [(root / n).is_dir() for n in ("a", "b", "e")] == [False, True, False]
    assert [(root / n).is_file() for n in ("a", "b", "e")] == [True, False, False]
    assert [(root / n).exists() for n in ("a", "b", "e")] == [True, True, False]
    assert (root / "a").stat().st_size == 3
    assert read_range(root / "b" / "d.bin", 5, 3) == b"\5\6\7"
    with open_binary(root / "b" / "d.bin") as file:
        assert file.seek(-2, os.SEEK_END) == 254
        assert file.read() == b"\xfe\xff"
    for missing in (lambda: (root / "e").read_bytes(), lambda: (root / "e").stat()):
        with pytest.raises(FileNotFoundError):
            missing()
    (root / "a").unlink()
    (root / "a").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "a").unlink()
    again = pickle.loads(pickle.dumps(root))
    assert again == root
    assert (again / "b" / "c.json").read_text() == "[\n  1\n]\n"
    assert str(root.absolute()) == str(root.resolve()) == str(root)
    assert place(str(root)) == root
    assert first_unwritable(root) is None
    check_writable(root)


def test_a_copy_is_made_again_when_the_object_changes(
    bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = place(f"{bucket.url}/copies/{time.time_ns()}")
    write_text(folder / "w" / "x.npz", "one")
    first = local_copy(folder / "w" / "x.npz")
    with bucket.failing(lambda method, path: 500 if "alt=media" in path else None):
        assert local_copy(folder / "w" / "x.npz") == first  # nothing is downloaded again
    write_text(folder / "w" / "x.npz", "two")
    write_text(folder / "w" / "deep" / "y", "deep")
    second = local_copy(folder / "w" / "x.npz")
    assert (first.name, first.read_text()) == ("x.npz", "one")
    assert (second.name, second.read_text()) == ("x.npz", "two")
    whole = local_copy(folder / "w")
    assert paths_below(folder / "w") == ["deep/y", "x.npz"]
    assert (whole / "deep" / "y").read_text() == "deep"
    assert local_copy(tmp_path) == tmp_path
    assert local_copy(folder / "none") == folder / "none"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://b/a", "--workdir: got 's3://b/a'; expected gs://BUCKET/... or a path on this "),
        ("hf://b/a", "--workdir: got 'hf://b/a'; expected gs://BUCKET"),
        ("ftp://b/a", "--workdir: got 'ftp://b/a'; expected gs://BUCKET"),
        ("gs://", "--workdir: got 'gs://'; expected a bucket"),
        ("GS://b/a", "--workdir: got 'GS://b/a'; expected a local path or a URL of gs://, s3"),
        ("gs:/b/a", "--workdir: got 'gs:/b/a'; expected a local path or a URL of gs://, s3"),
    ],
)
def test_what_cannot_be_written_to_is_refused_in_one_line(url: str, words: str) -> None:
    with pytest.raises(StorageError) as caught:
        check_output("--workdir", url)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_what_is_hardly_a_local_path_is_none(tmp_path: Path) -> None:
    for path in ("GS://b/a", "gs:/b/a", "s3:/b"):
        with pytest.raises(StorageError, match=f"^got '{path}'; expected a local path or a URL"):
            place(path)
    for path in ("a:b/c", "a/b:/c", "./gs:/b", "a:/b", str(tmp_path)):
        assert place(path) == local_place(path, "--output") == Path(path)
    with pytest.raises(StorageError, match=r"^--output: got 'gs://b/a'; expected a path on this"):
        local_place("gs://b/a", "--output")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StorageError, match=r"got 'gs://b/a'; expected the package gcsfs: pip inst"):
        place("gs://b/a")
    assert not is_url("a//b:/c")


FAILURES = [
    (401, "no valid credentials"),
    (403, "access is denied to these credentials; expected roles/storage.objectUser"),
    (429, "storage is unavailable since"),
    (503, "storage is unavailable since"),
]


@pytest.mark.parametrize(("status", "words"), FAILURES)
@pytest.mark.parametrize("what", ["exists", "is_dir", "read_bytes", "iterdir", "write", "stat"])
def test_failures_are_one_line_and_never_a_missing_file(bucket, status, words, what) -> None:
    path = place(f"{bucket.url}/failures/a")
    path.fs._patience = 0.0
    calls = {
        "write": lambda: check_writable(path),
        "iterdir": lambda: list(path.iterdir()),
    }
    try:
        with (
            bucket.failing(lambda method, where: status),
            pytest.raises(StorageError, match=words) as caught,
        ):
            calls.get(what, getattr(path, what, None))()
    finally:
        path.fs._patience = 300.0
    assert "gs://rae" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bucket_that_does_not_exist_and_a_network_that_is_not_there(
    bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"gs://other\S*: there is no bucket 'other'"):
        check_writable(place("gs://other/a"))
    path = place(f"{bucket.url}/a")
    monkeypatch.setattr(path.fs, "_patience", 0.0)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"^gs://rae/a: storage is unavailable since .*expected"):
        path.exists()


def test_a_failure_that_passes_is_waited_for_with_a_word(
    bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = place(f"{bucket.url}/passing/{time.time_ns()}")
    write_text(path, "here")
    statuses = [503, 429]
    monkeypatch.setattr("rae_dit.storage.gcs.SPEAK_AFTER", 0.3)
    monkeypatch.setattr(path.fs, "_spoke", -1e9)
    monkeypatch.setattr(logging.getLogger("rae_dit"), "propagate", True)
    with bucket.failing(lambda method, where: statuses.pop() if statuses else None):
        assert path.read_text() == "here"
    assert f"{path}: waiting for an answer for" in caplog.text
