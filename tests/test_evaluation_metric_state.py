"""Metric states: batches, processes and files change nothing in the values."""

import io
import math

import numpy as np
import pytest
from support.simulated_processes import on_each

from rae_dit.evaluation.metric_state import MetricState, over_processes
from rae_dit.evaluation.metrics import METRICS, fid, inception_score, metrics_named
from rae_dit.evaluation.metrics.base import Features
from rae_dit.evaluation.metrics.class_accuracy import ClassAccuracy
from rae_dit.evaluation.metrics.fid import FID
from rae_dit.evaluation.metrics.frechet import Frechet
from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance
from rae_dit.evaluation.metrics.inception_score import InceptionScore
from rae_dit.evaluation.metrics.precision_recall import PrecisionRecall, precision_recall
from rae_dit.evaluation.metrics.sfid import SFID
from rae_dit.multihost.blocks import join_length, split_length

INCEPTION = ("fid", "sfid", "inception_score", "precision", "recall")
KINDS = (FID, SFID, InceptionScore, PrecisionRecall, ClassAccuracy)


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


def state_of(found, sizes, *, stride=1, first=0, labels=None, kinds=KINDS):
    filled, start = MetricState.of(kinds, feature_stride=stride), 0
    for size in sizes:
        stop = start + size
        some = None if labels is None else labels[start:stop]
        filled.update(first + np.arange(start, stop), rows(found, start, stop), some)
        start = stop
    return filled


@pytest.fixture
def pair():
    return features(0, 40), features(1, 30)


def test_metrics_are_those_of_the_features_together(pair, monkeypatch):
    monkeypatch.setattr(fid, "BUFFERED", 11)
    real, generated = (state_of(f, s) for f, s in zip(pair, [(7, 1, 32), (30,)], strict=True))
    values = generated.compute(INCEPTION, real)
    assert tuple(values) == INCEPTION

    def distance(a, b):
        return frechet_distance(Moments.of(a), Moments.of(b))

    assert values["fid"] == pytest.approx(distance(pair[0].pool, pair[1].pool), rel=1e-9)
    assert values["sfid"] == pytest.approx(distance(pair[0].spatial, pair[1].spatial), rel=1e-9)
    assert (values["precision"], values["recall"]) == precision_recall(pair[0].pool, pair[1].pool)
    real, generated = (state_of(f, [len(f.pool)], kinds=[Frechet]) for f in pair)
    assert generated.compute(("frechet",), real)["frechet"] == pytest.approx(values["fid"])


@pytest.mark.parametrize("count", [2, 8, 256])
def test_processes_add_up_to_the_whole(pair, count, monkeypatch):
    """Few images: most of the 256 have none, and know no shape."""
    monkeypatch.setattr(inception_score, "SPLIT", 15)
    labels = np.arange(40) % 3
    whole, reference = state_of(pair[0], (40,), labels=labels), state_of(pair[1], (30,))

    def share(together):
        start, stop = (40 * i // count for i in (together.index, together.index + 1))
        own = state_of(
            rows(pair[0], start, stop),
            (stop - start,) if stop > start else (),
            first=start,
            labels=labels[start:stop],
        )
        return over_processes(own, together)

    results, given = on_each(count, share)
    metrics = (*INCEPTION, "class_accuracy")
    wanted = whole.compute(metrics, reference)
    assert results[0].compute(metrics, reference) == pytest.approx(wanted, rel=1e-12)
    assert wanted["class_accuracy"] == np.mean(pair[0].classes == labels)
    np.testing.assert_array_equal(results[0][PrecisionRecall].features(), pair[0].pool)
    for other in results[1:]:
        assert other.num_images == 40
        assert other.compute(("fid",), reference) == results[0].compute(("fid",), reference)
        assert other[PrecisionRecall].rows == []
    # Sums of 6^2 + 6 and 9^2 + 9 numbers, three splits of 5 + 2, 40 rows of 6, and a few counts:
    # what one process gives does not grow with their number, but for 8 bytes of each count.
    sums = 8 * (42 + 90 + 3 * 7 + 2 + 1) + 4 * 40 * 6
    assert max(given) - sums <= 8 * 16 * count


def test_sums_have_the_digits_of_float64():
    """Numbers of very different sizes, over 256 processes; none, and zeros."""
    parts = np.random.default_rng(0).normal(size=(256, 50)) * np.logspace(-6, 6, 50)
    results, _ = on_each(256, lambda together: together.sum_floats(parts[together.index]))
    exact = np.array([math.fsum(column) for column in parts.T])
    np.testing.assert_allclose(results[0], exact, rtol=0, atol=2**-50 * np.abs(exact).max())
    assert all(np.array_equal(results[0], other) for other in results)
    for empty in (np.zeros((0, 3)), np.zeros(4)):
        (found, _), _ = on_each(2, lambda together, empty=empty: together.sum_floats(empty))
        np.testing.assert_array_equal(found, empty)


def test_a_sum_of_what_is_not_finite_is_not_finite():
    """NaN on one of four processes, and infinities, as numpy adds them; numbers beside them."""
    parts = np.arange(20, dtype=float).reshape(4, 5) / 7
    parts[1, 0], parts[2, 1], parts[0, 2], parts[3, 2] = np.nan, np.inf, np.inf, -np.inf
    parts[:, 3] = -np.inf
    results, _ = on_each(4, lambda together: together.sum_floats(parts[together.index]))
    with np.errstate(invalid="ignore"):
        expected = parts.sum(axis=0)
    for found in results:
        np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_a_length_beyond_32_bits_is_sent_in_two():
    for length in (0, 1, 2**31 - 1, 2**31, 2**31 + 5, 2**40 + 3):
        halves = split_length(length)
        assert halves.dtype == np.int32
        assert join_length(halves) == length


def empty_state(together):
    return over_processes(MetricState.of(KINDS), together)


def test_no_images_anywhere_are_no_images():
    results, _ = on_each(2, empty_state)
    assert [one.num_images for one in results] == [0, 0]
    with pytest.raises(ValueError, match="inception_score: got no images"):
        results[0].compute(("inception_score",), None)


def test_a_file_gives_every_bit_back(pair):
    before = state_of(pair[0], (40,), labels=np.zeros(40, int), stride=3)
    after = MetricState.from_bytes(KINDS, before.to_bytes())
    assert before.to_arrays().keys() == after.to_arrays().keys()
    for name, value in before.to_arrays().items():
        np.testing.assert_array_equal(value, after.to_arrays()[name])
        assert value.dtype == after.to_arrays()[name].dtype
    assert (after[PrecisionRecall].feature_stride, after.num_images) == (3, 40)
    assert after[ClassAccuracy].num_labeled == 40
    assert after[InceptionScore].compute() == before[InceptionScore].compute()


def test_a_cached_reference_of_before_december_2026_is_read(pair):
    """Its arrays, written down by hand: one array of counts, moments and rows by today's names."""
    pool, spatial = Moments.of(pair[0].pool), Moments.of(pair[0].spatial)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        counts=np.array([2, 40, 0, 0], np.int64),  # keep, count, right, read
        pool_mean=pool.mean,
        pool_covariance=pool.covariance,
        pool_count=np.array(40, np.int64),
        spatial_mean=spatial.mean,
        spatial_covariance=spatial.covariance,
        spatial_count=np.array(40, np.int64),
        rows=pair[0].pool[::2],
        split=np.array([0], np.int64),
        split_count=np.array([40], np.int64),
        split_negentropy=np.array([-3.0]),
        split_probabilities=np.ones((1, 5)),
    )
    old = MetricState.from_bytes([FID, SFID, PrecisionRecall], buffer.getvalue())
    assert (old.num_images, old[PrecisionRecall].feature_stride) == (40, 2)
    new = state_of(pair[0], (40,), stride=2, kinds=(FID, SFID, PrecisionRecall))
    generated = state_of(pair[1], (30,))
    metrics = ("fid", "sfid", "precision", "recall")
    assert generated.compute(metrics, old) == generated.compute(metrics, new)
    with pytest.raises(KeyError, match="num_"):  # sums that no such file has are never made up
        MetricState.from_bytes([Frechet, Unheard], buffer.getvalue())


class Unheard(ClassAccuracy):
    """A metric that came later."""

    @classmethod
    def from_arrays(cls, arrays):
        return cls(num_correct=int(arrays["num_unheard"]))


def test_every_metric_has_names_of_its_own():
    names = [name for kind in METRICS for name in kind.names]
    assert len({*names}) == len(names)
    assert metrics_named(("recall", "fid", "precision")) == (PrecisionRecall, FID)
    with pytest.raises(ValueError, match=r"arrays \['pool_count', .* of another metric"):
        state_of(features(0, 9), (9,), kinds=(FID, Frechet)).to_arrays()


def test_every_third_row_is_kept_whatever_the_batches(pair):
    states = [state_of(pair[0], sizes, stride=3, first=2) for sizes in ((40,), (4, 35, 1))]
    kept = [state[PrecisionRecall].features() for state in states]
    np.testing.assert_array_equal(kept[0], pair[0].pool[1::3])
    np.testing.assert_array_equal(kept[0], kept[1])


def test_memory_does_not_grow_where_rows_are_not_kept():
    filled = MetricState.of([FID])
    for number in range(30):
        filled.update(np.arange(500), features(number, 500), None)
        assert sum(map(len, filled[FID].waiting)) < fid.BUFFERED
    assert filled.num_images == filled[FID].moments().count == 15_000


def test_what_is_missing_is_said(pair):
    generated, real = (state_of(found, (30,)) for found in pair)
    with pytest.raises(ValueError, match="precision: got no reference"):
        generated.compute(("recall",), None)
    with pytest.raises(ValueError, match="fid: got no reference"):
        generated.compute(("fid",), MetricState.of([SFID]))
    with pytest.raises(ValueError, match="sfid: got no features"):
        generated.compute(("sfid",), MetricState.of(KINDS))
    with pytest.raises(ValueError, match="recall: got no features"):
        MetricState.of(KINDS).compute(("recall",), real)
    with pytest.raises(ValueError, match="class_accuracy: got no labels"):
        generated.compute(("class_accuracy",), None)
    with pytest.raises(ValueError, match="sfid: got no spatial features"):
        generated.update(np.arange(3), Features(pair[0].pool[:3]), None)
