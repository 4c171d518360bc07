"""The account of a run's time, with a clock that is turned by hand."""

import contextlib
import json
import logging
from pathlib import Path

import pytest

from rae_dit.storage.errors import StorageError
from rae_dit.training import goodput as account
from rae_dit.training.goodput import ACTIVITIES, WRITE_EVERY, Goodput


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_in(self, context, seconds: float) -> None:
        with context:
            self.now += seconds


def take(goodput: Goodput, clock: Clock, steps: range, seconds: float = 2.0) -> None:
    for step in steps:
        clock.pass_in(goodput.spending("data_wait"), 0.5)
        clock.pass_in(goodput.taking(step), seconds)


def seconds_of(goodput: Goodput) -> dict[str, float]:
    """Those above zero, by activity."""
    found = {
        name.removeprefix("goodput/").removesuffix("_seconds"): value
        for name, value in goodput.metrics().items()
        if name != "goodput/share" and value != 0
    }
    assert set(found) <= set(ACTIVITIES)
    return found


def test_every_second_belongs_to_one_activity() -> None:
    clock = Clock()
    goodput = Goodput(None, started=90.0, clock=clock)  # imports took ten seconds
    clock.pass_in(goodput.spending("restore"), 4)
    goodput.begin(7, 0)
    clock.now += 1  # still on the way to the first step
    take(goodput, clock, range(8, 9), 30)  # compiles
    take(goodput, clock, range(9, 12))
    clock.now += 0.25  # logging, between blocks
    with goodput.spending("evaluation"):
        clock.now += 3
        clock.pass_in(goodput.spending("save"), 5)  # not twice
        with contextlib.suppress(ValueError), goodput.spending("validation"):
            clock.now += 7
            raise ValueError
        clock.now += 1
    goodput.switch("save")
    clock.now += 2
    expected = {
        **{"start": 11, "restore": 4, "compile": 30, "step": 6.25, "data_wait": 2},
        **{"evaluation": 4, "save": 7, "validation": 7},
    }
    assert seconds_of(goodput) == expected
    assert sum(expected.values()) == clock.now - 90
    assert goodput.metrics()["goodput/share"] == pytest.approx(6.25 / (clock.now - 90))


def test_creating_a_state_is_no_restore() -> None:
    clock = Clock()
    goodput = Goodput(None, clock=clock)
    clock.pass_in(goodput.spending("restore"), 4)
    goodput.begin(0, 0)
    assert seconds_of(goodput) == {"start": 4}


def test_steps_that_changed_nothing_are_lost_once() -> None:
    """Of 20 timed steps 2 were bad; going back 6, of which 1 was bad, loses 5 more."""
    clock = Clock()
    goodput = Goodput(None, clock=clock)
    goodput.begin(0, 0)
    take(goodput, clock, range(1, 22))  # the first compiles
    goodput.count_bad(2)
    assert seconds_of(goodput)["step"] == pytest.approx(18 * 2)
    goodput.count_bad(2)
    goodput.went_back(15, 1)
    assert seconds_of(goodput)["step"] == pytest.approx(13 * 2)
    assert seconds_of(goodput)["lost"] == pytest.approx(7 * 2)
    take(goodput, clock, range(16, 18))
    assert seconds_of(goodput)["step"] == pytest.approx(15 * 2)


def test_steps_after_the_last_save_are_lost_by_a_kill(tmp_path: Path) -> None:
    path, clock = tmp_path / "goodput.json", Clock()
    first = Goodput(path, clock=clock)
    first.begin(0, 0)
    take(first, clock, range(1, 41))
    first.metrics()
    assert json.loads(path.read_text())["reached"] == 40
    before = seconds_of(first)
    assert sum(before.values()) == 100
    take(first, clock, range(41, 44))  # then it is killed, less than a minute later

    clock = Clock(5.0)
    with Goodput(path, clock=clock) as second:
        clock.pass_in(second.spending("restore"), 6)
        second.begin(30, 0)
        expected = before | {"step": 29 * 2, "lost": 10 * 2, "restore": 6}
        assert seconds_of(second) == pytest.approx(expected)
        take(second, clock, range(31, 36))
    kept = json.loads(path.read_text())
    assert (kept["sessions"], kept["reached"], kept["steps"]) == (2, 35, 29 + 4)
    assert sum(kept["seconds"].values()) == pytest.approx(100 + 6 + 5 * 2.5)
    assert kept["share"] == pytest.approx((29 + 4) * 2 / sum(kept["seconds"].values()))


def test_the_file_is_written_once_a_minute(tmp_path: Path) -> None:
    path, clock = tmp_path / "goodput.json", Clock()
    goodput = Goodput(path, clock=clock)
    goodput.metrics()
    goodput.begin(0, 0)
    clock.now += WRITE_EVERY - 1
    goodput.metrics()
    assert not path.exists()
    clock.now += 1
    goodput.metrics()
    assert path.exists()
    path.unlink()
    goodput.metrics()
    assert not path.exists()


def test_a_run_that_was_refused_leaves_the_account_of_another_alone(tmp_path: Path) -> None:
    with Goodput(tmp_path / "goodput.json"):
        pass
    assert not list(tmp_path.iterdir())


ACCOUNT = '{"seconds": %s, "sessions": %s, "steps": 1, "reached": 1, "bad_steps": 0}'


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", "[" * 100_000, "\udcff"),
        *(ACCOUNT % (seconds, 1) for seconds in ("3", '{"step": "a"}', '{"step": NaN}')),
        *(ACCOUNT % (seconds, 1) for seconds in ('{"step": -1}', f'{{"step": 1{"0" * 400}}}')),
        *(ACCOUNT % ('{"step": 2}', count) for count in ("true", -1, 1.5)),
    ],
    ids=lambda content: content[:60],
)
def test_a_damaged_account_starts_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "goodput.json").write_text(content, errors="surrogateescape")
    clock = Clock()
    goodput = Goodput(tmp_path / "goodput.json", clock=clock)
    with caplog.at_level(logging.WARNING):
        goodput.begin(5, 0)
    assert "goodput.json cannot be read" in caplog.text
    clock.now += 2
    assert seconds_of(goodput) == {"start": 2}


def test_a_disk_that_refuses_the_account_ends_no_run_and_hides_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "goodput.json").mkdir()
    clock = Clock()

    def run() -> None:
        with Goodput(tmp_path / "goodput.json", clock=clock) as goodput:
            goodput.begin(0, 0)
            clock.now += WRITE_EVERY
            assert goodput.metrics()["goodput/start_seconds"] == WRITE_EVERY
            raise KeyError("why the run ended")

    with pytest.raises(KeyError, match="why the run ended"):
        run()
    assert caplog.text.count("goodput.json cannot be written") == 2


def test_a_bucket_that_cannot_be_reached_only_costs_the_account(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> str:
        raise StorageError("UNAVAILABLE")

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(account, "write_json", fail)
    with Goodput(Path("goodput.json"), clock=Clock()) as goodput:
        goodput.begin(5, 0)
    assert "goodput.json cannot be read (UNAVAILABLE)" in caplog.text
    assert "goodput.json cannot be written (UNAVAILABLE)" in caplog.text


def test_one_table_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Goodput(None, clock=clock) as goodput:
        clock.now += 30
        goodput.begin(0, 0)
        take(goodput, clock, range(1, 62))
        goodput.count_bad(10)
    text = caplog.records[-1].getMessage()
    assert text.splitlines() == [
        "goodput 54.8% of 3m02s in 1 session, 54.8% of this one",
        "  step          1m40s  54.8%      1m40s  54.8%",
        "  lost            20s  11.0%        20s  11.0%",
        "  start           30s  16.4%        30s  16.4%",
        "  compile          2s   1.1%         2s   1.1%",
        "  data_wait       30s  16.7%        30s  16.7%",
    ]
