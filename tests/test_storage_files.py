"""Files are written whole or not at all, and what must be closed is closed."""

import os
from pathlib import Path

import pytest

from rae_dit.storage.files import first_unwritable, replacing, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"é": 1})
    write_json(path, {"b": [2]})
    assert path.read_text() == '{\n  "b": [\n    2\n  ]\n}\n'
    assert names(path.parent) == ["a.json"]


def test_what_stands_in_the_way_of_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert first_unwritable(tmp_path) is None
    assert first_unwritable(tmp_path / "new" / "newer") is None
    assert first_unwritable(file) == first_unwritable(file / "new" / "newer") == file
    monkeypatch.chdir(tmp_path)
    assert first_unwritable(Path("new/newer")) is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root
    assert first_unwritable(Path("new/newer")) == first_unwritable(tmp_path / "new") == tmp_path
    assert first_unwritable(tmp_path) == tmp_path


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"


def test_nan_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", float("nan"))
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_failure_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def write_half() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_content_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    write_text(tmp_path / "a", "new")
    assert done == ["sync", "replace"]
