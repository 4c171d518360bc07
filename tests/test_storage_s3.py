"""Data on s3://, from an emulator; what the hub does not give is one line."""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.run_processes import free_address
from test_storage_data import SOURCES, opened

from rae_dit.storage.files import upload_tree
from rae_dit.storage.places import place
from rae_dit.storage.reading import local_copy

IS_INSTALLED = all(importlib.util.find_spec(name) for name in ("moto", "s3fs"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where an emulator of S3 listens, which has the bucket 'rae'."""
    if not IS_INSTALLED:
        pytest.skip("the emulator is not installed here")
    port = free_address().partition(":")[2]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    # Not through JAX's variables: it needs no devices.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    last = time.monotonic() + 60
    request = urllib.request.Request(f"{url}/rae", method="PUT")
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            break
        except urllib.error.URLError:
            assert time.monotonic() < last
            time.sleep(0.1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "x")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield url
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("name", ["folder", "tar", "parquet", "arrow"])
def test_bytes_and_order_are_those_of_the_disk(
    address: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kind, make = SOURCES[name]
    (tmp_path / "data").mkdir()
    inside = make(tmp_path / "data")
    root = place(f"s3://rae/{name}")
    upload_tree(tmp_path / "data", root)
    local, remote = opened(kind, f"{tmp_path / 'data'}{inside}"), opened(kind, f"{root}{inside}")
    assert remote.fingerprint == local.fingerprint
    assert [remote.files.read(i) for i in range(len(remote))] == [
        local.files.read(i) for i in range(len(local))
    ]
    with pytest.raises(ValueError, match="below which nothing is"):
        opened(kind, "s3://rae/none")


def test_a_bucket_that_is_not_there_and_copies(address: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = place("s3://rae/copies/w.npz")
    file.write_bytes(b"one")
    assert local_copy(file).read_bytes() == b"one"
    file.write_bytes(b"two")
    assert local_copy("s3://rae/copies/w.npz").read_bytes() == b"two"
    assert not place("s3://other/a").exists()


@pytest.mark.parametrize("url", ["s3://rae/a", "hf://datasets/owner/name/a.parquet"])
def test_an_unreachable_network_is_one_line(url: str, tmp_path: Path) -> None:
    code = f"""
import sys
from rae_dit.storage.errors import StorageError
from rae_dit.storage.places import place
try:
    place({url!r}).exists()
except StorageError as error:
    print(error)
"""
    environment = os.environ | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_MAX_ATTEMPTS": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 1, ended.stdout
    assert url in ended.stdout
