"""Files that grow are in the bucket at times, at a save and at the end; a failure loses none."""

import logging
import time
from pathlib import Path

import pytest

from rae_dit.storage.errors import StorageError
from rae_dit.storage.lease import HeldError, Lease
from rae_dit.storage.places import place
from rae_dit.storage.spool import Spool


@pytest.fixture
def workdir(bucket) -> Path:
    found = place(f"{bucket.url}/spools/{time.time_ns()}")
    found.fs._patience = 0.0
    yield found
    found.fs._patience = 300.0


def append(spool: Spool, text: str) -> None:
    (spool.directory / "deep").mkdir(exist_ok=True)
    with (spool.directory / "deep" / "lines").open("a") as file:
        file.write(text)


def test_what_was_appended_is_uploaded_when_asked_and_at_the_end(workdir: Path) -> None:
    (workdir / "before").write_bytes(b"remote")
    with Spool(workdir) as spool:
        spool.fetch("before")
        spool.fetch("none")
        assert (spool.directory / "before").read_text() == "remote"
        append(spool, "a\n")
        (spool.directory / ".hidden").touch()
        spool.upload()
        assert (workdir / "deep" / "lines").read_text() == "a\n"
        append(spool, "b\n")
        directory = spool.directory
    assert (workdir / "deep" / "lines").read_text() == "a\nb\n"
    assert not (workdir / ".hidden").exists()
    assert not directory.exists()


def test_what_was_appended_is_uploaded_at_times_after_failures_too(
    bucket, workdir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("rae_dit"), "propagate", True)
    with Spool(workdir, every=0.05) as spool:
        with bucket.failing(lambda method, path: 503):
            append(spool, "a\n")
            wait_for(lambda: "tried again" in caplog.text)
        wait_for((workdir / "deep" / "lines").exists)


def test_a_failure_at_the_end_names_the_local_files(bucket, workdir: Path) -> None:
    spool = Spool(workdir)
    append(spool, "a\n")
    with (
        bucket.failing(lambda method, path: 503),
        pytest.raises(StorageError, match=f"not uploaded is in {spool.directory}$"),
    ):
        spool.close()
    assert (spool.directory / "deep" / "lines").read_text() == "a\n"


def test_nothing_is_uploaded_over_the_files_of_a_run_that_took_over(
    workdir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("rae_dit"), "propagate", True)
    with Lease(workdir, renew=600.0) as lease:
        at_times = Spool(workdir, check=lease.check, every=0.05)
        asked = Spool(workdir, check=lease.check)
        (workdir / ".lock").write_bytes(b'{"run": "x"}')
        for spool in (at_times, asked):
            append(spool, "a\n")
        wait_for(lambda: f"not uploaded is in {at_times.directory}" in caplog.text)
        with pytest.raises(HeldError, match="taken over"):
            asked.upload()
        for spool in (at_times, asked):
            spool.close()
            assert (spool.directory / "deep" / "lines").read_text() == "a\n"
    assert not (workdir / "deep").exists()


def test_nothing_is_uploaded_at_the_end_while_the_lease_is_not_known(workdir: Path) -> None:
    def check() -> None:
        raise StorageError("unavailable")

    spool = Spool(workdir, check=check)
    append(spool, "a\n")
    with pytest.raises(StorageError, match=f"^unavailable; .* is in {spool.directory}$"):
        spool.close()
    assert not (workdir / "deep").exists()


def test_on_a_disk_it_is_the_directory_itself(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        append(spool, "a\n")
        assert spool.directory == tmp_path
        spool.fetch("none")
        spool.upload()
    assert (tmp_path / "deep" / "lines").read_text() == "a\n"


def wait_for(is_so, seconds: float = 20.0) -> None:
    last = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < last
        time.sleep(0.05)
