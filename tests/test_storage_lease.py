"""A lease is held by one run and taken over from a dead one, by the clock of the server alone."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from rae_dit.storage import lease as lease_module
from rae_dit.storage.errors import StorageError
from rae_dit.storage.lease import HeldError, Lease
from rae_dit.storage.places import place


@pytest.fixture
def workdir(bucket) -> Path:
    return place(f"{bucket.url}/leases/{time.time_ns()}")


def elsewhere(workdir: Path, monkeypatch: pytest.MonkeyPatch, **options: float) -> Lease:
    """A lease of a run on another machine."""
    made = Lease(workdir, **options)
    made._own |= {"host": "other", "process": "boot pid:[1] 1 1"}
    return made


def leftover(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object of a run on another machine that was killed."""
    assert elsewhere(workdir, monkeypatch)._write("0")


def test_one_after_another_and_nothing_is_left(workdir: Path) -> None:
    for _ in range(2):
        with Lease(workdir) as held:
            held.check()
            names = [path.name for path in workdir.iterdir()]
            assert names == [".lock"]
    assert not workdir.exists()


def test_a_second_run_is_refused_as_soon_as_the_first_renews(workdir, monkeypatch) -> None:
    started = time.monotonic()
    words = r"^gs://\S*: got held by process \d+ on other, renewed at "
    with elsewhere(workdir, monkeypatch, renew=0.5), pytest.raises(HeldError, match=words):
        Lease(workdir, renew=0.5).__enter__()
    assert time.monotonic() - started < 20


def test_one_that_is_not_renewed_is_taken_over_once(workdir, monkeypatch) -> None:
    leftover(workdir, monkeypatch)
    winners, losers = [], []

    def compete() -> None:
        try:
            winners.append(Lease(workdir, renew=60.0, expire=1.0).__enter__())
        except HeldError:
            losers.append(1)

    started = time.monotonic()
    threads = [threading.Thread(target=compete) for _ in range(3)]
    for thread in threads:
        thread.start()
    threads[0].join(60) or [thread.join(60) for thread in threads[1:]]
    assert (len(winners), len(losers)) == (1, 2)
    assert time.monotonic() - started >= 1.0
    winners[0].__exit__(None, None, None)


def test_a_dead_process_of_this_machine_is_not_waited_for(workdir, monkeypatch) -> None:
    dead = Lease(workdir)
    own = dead._own["process"]
    assert own is not None
    *before, _ = own.split()
    dead._own |= {"process": " ".join([*before, "1"])}  # of the same number, but older
    assert dead._write("0")
    with Lease(workdir):
        pass
    alive = Lease(workdir)
    assert alive._write("0")
    found = alive._find()
    assert found is not None
    assert not lease_module._is_dead(found.holder)


@pytest.mark.parametrize(
    ("answer", "is_dead"), [(PermissionError, False), (ProcessLookupError, True)]
)
def test_a_process_that_proc_hides_is_alive(monkeypatch, answer, is_dead: bool) -> None:
    own = lease_module._process(os.getpid())
    assert own is not None

    def kill(pid: int, signal: int) -> None:
        assert (pid, signal) == (77, 0)
        raise answer

    monkeypatch.setattr(lease_module, "_process", lambda pid: None if pid == 77 else own)
    monkeypatch.setattr(os, "kill", kill)
    holder = {"process": " ".join([*own.split()[:2], "77", "1"]), "pid": 77}
    assert lease_module._is_dead(holder) == is_dead


def test_the_clock_of_a_host_does_not_matter(workdir, monkeypatch) -> None:
    monkeypatch.setattr(lease_module.time, "time", lambda: 0.0)  # 56 years late
    leftover(workdir, monkeypatch)
    found = Lease(workdir)._find()
    assert found is not None
    assert -1 < found.age < 30
    (workdir / ".lock").write_bytes(b"torn {")
    found = Lease(workdir)._find()
    assert found is not None
    assert found.holder == {}


def test_a_holder_that_was_replaced_stops(workdir, monkeypatch) -> None:
    held = Lease(workdir, renew=60.0)
    with held:
        (workdir / ".lock").write_bytes(json.dumps({"run": "x", "host": "other"}).encode())
        with pytest.raises(HeldError, match=r"got taken over \(by process \? on other"):
            held.check()
    assert (workdir / ".lock").exists()  # the other's
    gone = Lease(workdir.parent / "gone", renew=60.0)
    with gone:
        (workdir.parent / "gone" / ".lock").unlink()
        with pytest.raises(HeldError, match="it was deleted"):
            gone.check()


def test_an_answer_lost_on_its_way_is_no_other_run(bucket, workdir, monkeypatch) -> None:
    real = lease_module.Lease._write

    def write(self: Lease, generation: str) -> bool:
        written = real(self, generation)
        if losing:
            self._generation = generation  # it arrived, but we do not know
            return False
        return written

    losing = [1]
    monkeypatch.setattr(lease_module.Lease, "_write", write)
    with Lease(workdir, renew=60.0) as held:
        held.check()
        losing.clear()
        held.check()
        with bucket.failing(lambda method, path: 403), pytest.raises(StorageError, match="denied"):
            held.check()
        held.check()
