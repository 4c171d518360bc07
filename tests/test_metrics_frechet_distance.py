"""Laws of the Fréchet distance and of mergeable moments."""

import numpy as np
import pytest
import scipy.linalg

from rae_dit.evaluation.metrics.frechet_distance import Moments, frechet_distance, merge


def _features(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Correlated features, f64 [count, dimensions]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + 3.0


def _gaussian(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(mean, covariance, 1000)


def _rotation(seed: int, dimensions: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dimensions, dimensions)))[0]


def test_moments_are_numpys_mean_and_unbiased_covariance():
    features = _features(0, 50, 6)
    moments = Moments.of(features.astype(np.float32))
    assert moments.mean.dtype == moments.covariance.dtype == np.float64
    reference = features.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(moments.mean, reference.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(reference, rowvar=False), rtol=1e-12)
    assert moments.count == 50


@pytest.mark.parametrize("sizes", [(1, 1), (1, 30), (7, 24), (2, 1, 1, 20, 3)])
def test_merged_parts_are_the_whole(sizes: tuple[int, ...]):
    features = _features(1, sum(sizes), 5) + 1e4  # an offset that a sum of squares would drown in
    parts = [Moments.of(part) for part in np.split(features, np.cumsum(sizes)[:-1])]
    whole, merged = Moments.of(features), parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(
        merged.covariance, whole.covariance, atol=1e-9 * np.trace(whole.covariance)
    )


@pytest.mark.parametrize("count", [200, 8])  # 8 features in 24 dimensions: singular
def test_distance_to_itself_is_zero(count: int):
    moments = Moments.of(_features(2, count, 24))
    assert frechet_distance(moments, moments) < 1e-9 * np.trace(moments.covariance)


def test_isotropic_gaussians_have_the_closed_form():
    first = _gaussian(np.zeros(7), 4.0 * np.eye(7))
    second = _gaussian(np.full(7, 0.5), 9.0 * np.eye(7))
    assert frechet_distance(first, second) == pytest.approx(7 * 0.25 + 7 * (3 - 2) ** 2, rel=1e-12)


def test_commuting_singular_covariances_have_the_closed_form():
    """With shared axes the distance is sum (sqrt a - sqrt b)^2, empty directions included.

    The square roots of eigenvalues of the product would be off by 1e-8 here; see equation (5).
    """
    axes = _rotation(3, 40)
    a = np.concatenate([np.linspace(1.0, 5.0, 10), np.zeros(30)])
    b = np.concatenate([np.zeros(5), np.linspace(0.1, 2.0, 35)])
    first = _gaussian(np.zeros(40), (axes * a) @ axes.T)
    second = _gaussian(np.zeros(40), (axes * b) @ axes.T)
    expected = np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_agrees_with_scipys_matrix_square_root():
    a, b = Moments.of(_features(4, 300, 12)), Moments.of(_features(5, 200, 12))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_symmetric():
    a, b = Moments.of(_features(6, 100, 9)), Moments.of(_features(7, 5, 9))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert frechet_distance(a, b) > 1.0


def test_moving_and_turning_both_changes_nothing_and_moving_one_adds_its_square():
    x, y = _features(8, 100, 6), _features(9, 80, 6)
    shift, turn = np.arange(6.0), _rotation(10, 6)
    plain = frechet_distance(Moments.of(x), Moments.of(y))
    moved = frechet_distance(Moments.of(x @ turn + shift), Moments.of(y @ turn + shift))
    assert moved == pytest.approx(plain, rel=1e-9)
    only_one = frechet_distance(Moments.of(x), Moments.of(x + shift))
    assert only_one == pytest.approx(np.square(shift).sum(), rel=1e-9)


def test_fewer_samples_than_dimensions_stays_finite_and_positive():
    a, b = Moments.of(_features(11, 3, 64)), Moments.of(_features(12, 2, 64))
    distance = frechet_distance(a, b)
    assert np.isfinite(distance)
    assert distance > 0
    constant = Moments.of(np.ones((4, 64)))
    assert frechet_distance(constant, constant) == 0.0


def test_never_below_zero():
    """Rounding alone would put some of these at -1e-13."""
    for seed in range(20):
        moments = Moments.of(_features(seed, 30, 10))
        nearly = Moments(moments.mean, moments.covariance * (1 + 1e-15), 30)
        assert frechet_distance(moments, nearly) >= 0.0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(5), r"got features of shape \(5,\)"),
        (np.zeros((0, 5)), r"got features of shape \(0, 5\)"),
        (np.array([[0.0, 1.0], [np.nan, 2.0]]), r"got 1 values of features.*index \(1, 0\)"),
        (np.array([[0.0, np.inf]]), "got 1 values of features that are not finite"),
    ],
)
def test_bad_features_are_named(features: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        Moments.of(features)


@pytest.mark.parametrize(
    ("mean", "covariance", "count", "message"),
    [
        (np.zeros((2, 2)), np.eye(2), 9, "got a mean of shape"),
        (np.zeros(3), np.eye(2), 9, "got a covariance of shape"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), 9, "not symmetric"),
        (np.array([0.0, np.nan]), np.eye(2), 9, "got 1 values of mean"),
        (np.zeros(2), np.full((2, 2), np.inf), 9, "got 4 values of covariance"),
        (np.zeros(2), np.eye(2), 0, "got count 0"),
    ],
)
def test_bad_moments_are_named(mean, covariance, count, message):
    with pytest.raises(ValueError, match=message):
        Moments(mean, covariance, count)


def test_different_dimensions_and_single_features_are_refused():
    three, four = Moments.of(_features(0, 9, 3)), Moments.of(_features(0, 9, 4))
    with pytest.raises(ValueError, match="frechet_distance: got moments of 3 and 4 dimensions"):
        frechet_distance(three, four)
    with pytest.raises(ValueError, match="merge: got moments of 4 and 3 dimensions"):
        merge(four, three)
    with pytest.raises(ValueError, match="got second moments of 1 feature"):
        frechet_distance(three, Moments.of(np.zeros((1, 3))))
