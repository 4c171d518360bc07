"""Tallies: batches, processes and files change nothing in the figures."""

import io

import numpy as np
import pytest

from rae_dit.evaluation import metric_state as module
from rae_dit.evaluation.metric_state import Features, Tally, from_arrays, metric_values, to_arrays
from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance
from rae_dit.evaluation.metrics.precision_recall import precision_recall

INCEPTION = ("fid", "sfid", "inception_score", "precision", "recall")


def features(seed, count):
    rng = np.random.default_rng(seed)
    return Features(
        pool=rng.normal(size=(count, 6)).astype(np.float32) + seed,
        spatial=rng.normal(size=(count, 9)).astype(np.float32),
        logits=rng.normal(size=(count, 5)).astype(np.float32),
        classes=rng.integers(0, 3, count),
    )


def rows(found, start, stop):
    return Features(*(values[start:stop] for values in found))


def tally(found, sizes, *, keep=1, first=0, labels=None):
    filled, start = Tally(keep), 0
    for size in sizes:
        stop = start + size
        some = None if labels is None else labels[start:stop]
        filled.add(first + np.arange(start, stop), rows(found, start, stop), some)
        start = stop
    return filled


@pytest.fixture
def pair():
    return features(0, 40), features(1, 30)


def test_metrics_are_those_of_the_features_together(pair, monkeypatch):
    monkeypatch.setattr(module, "BUFFERED", 11)
    real, generated = (tally(f, s) for f, s in zip(pair, [(7, 1, 32), (30,)], strict=True))
    values = metric_values(INCEPTION, generated, real)
    assert tuple(values) == INCEPTION

    def distance(a, b):
        return frechet_distance(Moments.of(a), Moments.of(b))

    assert values["fid"] == pytest.approx(distance(pair[0].pool, pair[1].pool), rel=1e-9)
    assert values["sfid"] == pytest.approx(distance(pair[0].spatial, pair[1].spatial), rel=1e-9)
    assert (values["precision"], values["recall"]) == precision_recall(pair[0].pool, pair[1].pool)
    assert metric_values(("frechet",), generated, real)["frechet"] == values["fid"]


def test_processes_merge_to_the_whole(pair):
    labels = np.arange(40) % 3
    whole = tally(pair[0], (40,), labels=labels)
    left = tally(rows(pair[0], 0, 15), (15,), labels=labels[:15])
    left.merge(tally(rows(pair[0], 15, 40), (5, 20), first=15, labels=labels[15:]))
    reference = tally(pair[1], (30,))
    metrics = (*INCEPTION, "class_accuracy")
    wanted = metric_values(metrics, whole, reference)
    assert metric_values(metrics, left, reference) == pytest.approx(wanted, rel=1e-9)
    assert wanted["class_accuracy"] == np.mean(pair[0].classes == labels)
    assert left.count == 40


def test_a_file_gives_every_bit_back(pair):
    before = tally(pair[0], (40,), labels=np.zeros(40, int), keep=3)
    buffer = io.BytesIO()
    np.savez(buffer, **to_arrays(before))
    buffer.seek(0)
    with np.load(buffer) as arrays:
        after = from_arrays(arrays)
    assert to_arrays(before).keys() == to_arrays(after).keys()
    for name, value in to_arrays(before).items():
        np.testing.assert_array_equal(value, to_arrays(after)[name])
        assert value.dtype == to_arrays(after)[name].dtype
    assert (after.keep, after.count, after.read) == (3, 40, 40)
    assert after.score.score() == before.score.score()


def test_every_third_row_is_kept_whatever_the_batches(pair):
    kept = [tally(pair[0], sizes, keep=3, first=2).features() for sizes in ((40,), (4, 35, 1))]
    np.testing.assert_array_equal(kept[0], pair[0].pool[1::3])
    np.testing.assert_array_equal(kept[0], kept[1])


def test_memory_does_not_grow_where_rows_are_not_kept():
    filled = Tally()
    for number in range(30):
        filled.add(np.arange(500), features(number, 500), None)
        assert sum(map(len, filled.pool.waiting)) < module.BUFFERED
    assert filled.rows == []
    assert filled.count == filled.pool.moments().count == 15_000


def test_what_is_missing_is_said(pair):
    generated = tally(pair[0], (40,), keep=0)
    with pytest.raises(ValueError, match="no features were kept"):
        metric_values(("recall",), generated, tally(pair[1], (30,)))
    with pytest.raises(ValueError, match="there is none"):
        metric_values(("fid",), generated, None)
    with pytest.raises(ValueError, match="moments of no features"):
        metric_values(("sfid",), generated, Tally())
