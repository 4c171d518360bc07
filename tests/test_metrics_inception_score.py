"""Inception Score: cases with known answers, and the laws of its sums."""

import numpy as np
import pytest
from support.simulated_processes import on_each

from rae_dit.evaluation.metrics.base import Features
from rae_dit.evaluation.metrics.inception_score import SPLIT, InceptionScore


def sums_of(logits, numbers):
    sums = InceptionScore()
    sums.update(numbers, Features(pool=logits, logits=logits), None)
    return sums


def score_of(logits, numbers=None):
    numbers = np.arange(len(logits)) if numbers is None else numbers
    return sums_of(logits, numbers).compute()["inception_score"]


def some_logits(count, seed=0, classes=7):
    return 3 * np.random.default_rng(seed).normal(size=(count, classes))


def test_sure_and_diverse_images_score_the_number_of_classes():
    assert score_of(1000.0 * np.tile(np.eye(5), (4, 1))) == pytest.approx(5, rel=1e-12)


@pytest.mark.parametrize("logits", [np.zeros((9, 5)), np.tile([900.0, 0, 0], (9, 1))])
def test_unsure_or_equal_images_score_one(logits):
    assert score_of(logits) == pytest.approx(1, rel=1e-12)


def test_score_is_its_definition():
    logits = some_logits(50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    divergence = (p * np.log(p / p.mean(axis=0))).sum(axis=1)
    assert score_of(logits) == pytest.approx(np.exp(divergence.mean()), rel=1e-12)


def test_a_constant_on_all_logits_changes_nothing():
    logits = some_logits(20)
    assert score_of(logits + 500.0) == pytest.approx(score_of(logits), rel=1e-9)


def test_splits_are_5000_images_in_a_row_and_the_rest():
    """All of one class in the first split, a class each in the second: 1 and 2 on average 1.5."""
    logits = np.zeros((SPLIT + 2, 2))
    logits[:-1, 0] = logits[-1, 1] = 1000.0
    assert score_of(logits) == pytest.approx(1.5, rel=1e-12)
    shifted = score_of(logits, np.arange(len(logits)) + 1)  # now three images in the second
    assert shifted == pytest.approx((1 + np.exp(-(2 / 3) * np.log(2 / 3) + np.log(3) / 3)) / 2)


def test_a_split_is_5000_images_as_in_adm_s_evaluator():
    """Four classes, 2,500 images in a row each: two in each split of 5,000, so each scores 2.

    A split of 500, or of a tenth of the images (1,000), would hold one class and score 1.
    """
    shown = np.repeat([0, 1, 2, 3], 2_500)
    logits = 1000.0 * np.eye(4)[shown]
    assert score_of(logits) == pytest.approx(2.0, rel=1e-12)
    # 12,500 images: two splits of two classes, and 2,500 of one class: (2 + 2 + 1) / 3.
    more = 1000.0 * np.eye(4)[np.repeat([0, 1, 2, 3, 0], 2_500)]
    assert score_of(more) == pytest.approx(5 / 3, rel=1e-12)


def test_parts_in_any_order_merge_to_the_whole():
    logits, numbers = some_logits(60), SPLIT - 30 + np.arange(60)
    parts = [InceptionScore(), InceptionScore()]
    for start, part in ((40, 0), (0, 1), (20, 0)):
        some = slice(start, start + 20)
        features = Features(pool=logits[some], logits=logits[some])
        parts[part].update(numbers[some], features, None)
    (whole, _), _ = on_each(2, lambda one: parts[one.index].over_processes(one))
    assert whole.compute()["inception_score"] == pytest.approx(score_of(logits, numbers), rel=1e-12)
    assert whole.counts == {0: 30, 1: 30}


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        InceptionScore().compute()
