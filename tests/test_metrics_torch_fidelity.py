"""Metrics of given features against the figures of torch-fidelity 0.4.0.

Its package is not needed to run this: torchvision, which it draws in, does not fit every torch. The
figures are those of its functions `fid_statistics_to_metric`, `prc_features_to_metric`
(neighbourhood 3) and `isc_features_to_metric` (without shuffling) on the features below; its
feature extractor is held against ours by golden/inception.npz.
"""

import numpy as np
import pytest

from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics import METRICS, inception_score
from rae_dit.evaluation.metrics.base import Features


def features(seed, count, width=32):
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) / 8
    return (mixed + rng.standard_normal(width) / 4).astype(np.float32)


KINDS = [kind for kind in METRICS if {*kind.needs} <= {"pool", "logits"}]


@pytest.fixture
def states():
    generated = 0.8 * features(1, 260)
    real = (0.5 * generated[:240] + 0.6 * features(2, 240)).astype(np.float32)
    found = []
    for rows in (generated, real):
        state = MetricState.of(KINDS)
        state.update(np.arange(len(rows)), Features(rows, logits=3 * rows), None)
        found.append(state)
    return found


def test_frechet_distance(states):
    generated, real = states
    assert generated.compute(("fid",), real)["fid"] == pytest.approx(4.305986161980325, rel=1e-6)


def test_precision_and_recall(states):
    values = states[0].compute(("precision", "recall"), states[1])
    assert values["precision"] == pytest.approx(0.39615383744239807, abs=1e-6)
    assert values["recall"] == pytest.approx(0.6166666746139526, abs=1e-6)


def test_inception_score_of_one_split(states):
    value = states[0].compute(("inception_score",), None)["inception_score"]
    assert value == pytest.approx(2.981769820295339, rel=1e-6)


def test_inception_score_of_four_splits(monkeypatch):
    monkeypatch.setattr(inception_score, "SPLIT", 65)
    sums = inception_score.InceptionScore()
    rows = 0.8 * features(1, 260)
    sums.update(np.arange(260), Features(rows, logits=3 * rows), None)
    assert sums.compute()["inception_score"] == pytest.approx(2.9148433425591658, rel=1e-6)
