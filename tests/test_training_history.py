"""What the loop remembers: when a loss is a spike, what is the best step, where the data are."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
from support.small_run import small_config

from rae_dit.checkpoint.retention import Best
from rae_dit.config import ConfigError
from rae_dit.training import run
from rae_dit.training.history import DivergedError, History, check_good, check_rollbacks


def after(losses, window=3) -> History:
    history = History()
    for step, loss in enumerate(losses, 1):
        history = history.with_loss(step, loss, window=window)
    return history


def test_a_spike_is_so_many_times_the_median_of_the_window():
    history = after([100.0, 1.0, 9.0, 2.0])  # the first has left; the median is 2, not the mean 4
    assert history.losses == (1.0, 9.0, 2.0)
    assert not history.is_spike(6.0, factor=3.0, window=3)
    assert history.is_spike(6.01, factor=3.0, window=3)


def test_no_spike_without_a_factor_or_before_the_window_is_full():
    assert not after([1.0, 1.0, 1.0]).is_spike(1e9, factor=None, window=3)
    assert not after([1.0, 1.0]).is_spike(1e9, factor=2.0, window=3)


def test_what_is_not_finite_is_a_bad_step_and_no_spike():
    history = after([1.0, 1.0, 1.0, math.nan, math.inf])
    assert history.losses == (1.0, 1.0, 1.0)
    assert history.sound_step == 5
    assert not history.is_spike(math.inf, factor=2.0, window=3)
    assert not history.is_spike(math.nan, factor=2.0, window=3)


def test_data_go_on_where_they_are():
    """Step s trains on batch s + skipped: the next one after the spike's, whatever came before."""
    at_20, seen = after([1.0] * 20), after([1.0] * 33)
    once = at_20.after_rollback(seen, back_to=20, spiked=35)
    assert (once.skipped_batches, once.rollbacks, once.losses) == (15, 1, (1.0, 1.0, 1.0))
    assert 21 + once.skipped_batches == 35 + seen.skipped_batches + 1
    # Again before anything was saved: the older checkpoint does not know of the first time.
    twice = at_20.after_rollback(once, back_to=20, spiked=22)
    assert (twice.skipped_batches, twice.rollbacks) == (17, 2)
    assert 21 + twice.skipped_batches == 22 + once.skipped_batches + 1


@pytest.mark.parametrize(("mode", "steps"), [("min", [1, 2, 2, 2, 5]), ("max", [1, 1, 1, 4, 4])])
def test_the_best_is_the_first_of_equals_and_finite(mode, steps):
    history, found = History(), []
    for step, value in enumerate([3.0, 2.0, 2.0, 7.0, 1.0], 1):
        for measured in (value, math.nan, -math.inf if mode == "min" else math.inf):
            values = {"train/loss": 0.0, "val/loss": measured}
            history = history.with_values(step, values, "val/loss", mode)
        found.append(history.best.step)
    assert found == steps
    assert history.best == Best(steps[-1], "val/loss", {"min": 1.0, "max": 7.0}[mode])


def test_a_metric_is_measured_at_some_steps_only_and_must_exist():
    history = History()
    assert history.with_values(1, {"train/loss": 1.0}, "val/loss", "min") is history
    assert history.with_values(1, {"train/loss": 1.0}, "", "min") is history
    with pytest.raises(ConfigError, match=r"^checkpoint.best_metric: got 'val/los'; .* val/loss$"):
        history.with_values(1, {"train/loss": 1.0, "val/loss": 1.0}, "val/los", "min")


@pytest.mark.parametrize("best", [None, Best(3, "val/loss", 0.1 + 0.2)])
def test_it_survives_json_bit_for_bit(best):
    history = dataclasses.replace(after([0.1, 1 / 3, 2e-9]), best=best)
    assert History.from_json(json.loads(json.dumps(history.to_json()))) == history


def test_history_of_before_has_no_mode():
    history = dataclasses.replace(after([0.1]), best=Best(3, "val/loss", 0.2), best_mode="max")
    kept = history.to_json()
    del kept["best_mode"]
    assert History.from_json(kept) == dataclasses.replace(history, best_mode="")


@pytest.mark.parametrize(
    ("metric", "mode", "there", "stays"),
    [
        ("val/loss", "max", True, True),
        ("val/loss", "min", True, False),
        ("val/l1", "max", True, False),
        ("val/loss", "max", False, False),
    ],
)
def test_the_best_is_forgotten_if_it_is_chosen_otherwise(monkeypatch, metric, mode, there, stays):
    history = History().with_values(3, {"val/loss": 0.2}, "val/loss", "max")
    changes = {"checkpoint.best_metric": metric, "checkpoint.best_mode": mode}
    monkeypatch.setattr(run.data_position, "check_position", lambda saved, expected, source: None)
    monkeypatch.setattr(run, "position", lambda run, step: {})
    own = SimpleNamespace(config=small_config(**changes), source=None)
    checkpoints = SimpleNamespace(has=lambda step: there and step == 3)
    found = run.read_history(own, 4, {"history": history.to_json()}, checkpoints)
    assert found.best == (Best(3, "val/loss", 0.2) if stays else None)


def test_too_many_rollbacks_end_the_run():
    history = after([1.0] * 7).after_rollback(after([1.0] * 7), back_to=7, spiked=9)
    check_rollbacks(history, 9, limit=2)
    with pytest.raises(DivergedError, match=r"step 9 .* 1 times .* allows 1\. .* up to 7 "):
        check_rollbacks(history, 9, limit=1)


def test_bad_steps_in_a_row():
    check_good(9, 5, limit=5)
    with pytest.raises(DivergedError, match="from 6 to 10;"):
        check_good(10, 5, limit=5)
