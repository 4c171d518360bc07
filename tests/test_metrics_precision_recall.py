"""Precision and recall: cases with known answers, and the same in blocks of any size."""

import numpy as np
import pytest

from rae_dit.evaluation.metrics import precision_recall as module
from rae_dit.evaluation.metrics.precision_recall import precision_recall


def line(*places):
    return np.array(places, np.float32)[:, None]


def brute_force(real, generated, k):
    def distances(a, b):
        return np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=2)

    def inside(points, features):
        radius = np.sort(distances(features, features), axis=1)[:, k]
        return (distances(points, features) <= radius).any(axis=1).mean()

    return inside(generated, real), inside(real, generated)


def test_a_line_worked_by_hand():
    """One neighbor. The real radii 1, 1, 2, 2 make [-1, 2] and [9, 15]: 2 and 15 touch it.

    The generated radii 1, 1, 5, 5 make [1, 4] and [10, 25]: 1, 11 and 13 lie in it, 0 does not.
    """
    real, generated = line(0, 1, 11, 13), line(2, 3, 15, 20)
    assert precision_recall(real, generated, neighbors=1) == (0.5, 0.75)


def test_equal_sets_and_far_sets():
    features = np.random.default_rng(0).normal(size=(30, 5))
    assert precision_recall(features, features) == (1.0, 1.0)
    assert precision_recall(features, features + 1e3) == (0.0, 0.0)


def test_a_collapsed_generator_is_precise_and_recalls_little():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(200, 3))
    generated = real[:1] + 0.01 * rng.normal(size=(50, 3))
    precision, recall = precision_recall(real, generated)
    assert precision == 1.0
    assert recall <= 2 / 200


@pytest.mark.parametrize("blocks", [(7, 5), (16, 64), (1024, 4096)])
@pytest.mark.parametrize("k", [1, 3])
def test_blocks_change_nothing(monkeypatch, blocks, k):
    monkeypatch.setattr(module, "ROWS", blocks[0])
    monkeypatch.setattr(module, "COLUMNS", blocks[1])
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(41, 4)), 0.7 * rng.normal(size=(33, 4)) + 0.5
    expected = brute_force(real, generated, k)
    assert 0.1 < expected[0] < 1 > expected[1] > 0.1  # a case that could go wrong
    assert precision_recall(real, generated, neighbors=k) == pytest.approx(expected)


def test_features_far_from_zero_keep_their_digits():
    """|a|^2 - 2ab + |b|^2 around 1e6 would leave noise of 1e-4 in float64, and chaos in float32."""
    rng = np.random.default_rng(3)
    real, generated = 1e-3 * rng.normal(size=(40, 3)), 1e-3 * rng.normal(size=(40, 3))
    moved = precision_recall(real + 1e6, generated + 1e6)
    assert moved == precision_recall((real + 1e6) - 1e6, (generated + 1e6) - 1e6)


def test_too_few_or_other_features_are_refused():
    with pytest.raises(ValueError, match=r"got generated features of shape \(3, 2\).*n > 3"):
        precision_recall(np.zeros((9, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="features of 2 and 3 numbers"):
        precision_recall(np.zeros((9, 2)), np.zeros((9, 3)))
