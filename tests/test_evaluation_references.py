"""Reference files: ADM's, pytorch-fid's, and features themselves."""

import zipfile

import numpy as np
import pytest

from rae_dit.data.files import SourceError
from rae_dit.evaluation import references
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics.base import Features
from rae_dit.evaluation.metrics.fid import FID
from rae_dit.evaluation.metrics.frechet_distance import Moments
from rae_dit.evaluation.metrics.precision_recall import PrecisionRecall
from rae_dit.evaluation.metrics.sfid import SFID
from rae_dit.evaluation.references import open_reference

ALL = ("fid", "sfid", "inception_score", "precision", "recall")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(references, "WIDTH", {"mu": 4, "mu_s": 3})


def moments(width, seed=0):
    return Moments.of(np.random.default_rng(seed).normal(size=(20, width)))


def statistics(suffix="", width=4):
    found = moments(width)
    return {f"mu{suffix}": found.mean, f"sigma{suffix}": found.covariance}


def save(folder, **arrays):
    np.savez(folder / "reference.npz", **arrays)
    return folder / "reference.npz"


IMAGES = np.zeros((5, 8, 8, 3), np.uint8)


def test_adm_s_files_need_their_images_for_precision_and_recall_only(tmp_path):
    path = save(tmp_path, arr_0=IMAGES, **statistics(), **statistics("_s", 3))
    file = open_reference(path, ALL)
    assert file.missing(ALL).keys() == {"precision", "recall"}
    assert file.missing(("fid", "sfid", "inception_score")) == {}
    assert file.shapes["arr_0"] == (5, 8, 8, 3)
    state = MetricState.of([FID, SFID, PrecisionRecall])
    computed = Features(np.ones((9, 4)), np.ones((9, 3)))  # of the images; statistics go before
    state.update(np.arange(9), computed, None)
    file.fill(state)
    np.testing.assert_array_equal(state[FID].moments().covariance, moments(4).covariance)
    np.testing.assert_array_equal(state[FID].moments().mean, moments(4).mean)
    np.testing.assert_array_equal(state[SFID].moments().mean, moments(3).mean)
    np.testing.assert_array_equal(state[PrecisionRecall].features(), np.ones((9, 4)))


def test_pytorch_fid_s_files_serve_fid_alone(tmp_path):
    path = save(tmp_path, **statistics())
    assert open_reference(path, ("fid", "inception_score")).missing(("fid",)) == {}
    with pytest.raises(
        SourceError, match="expected mu_s and sigma_s or images in arr_0 for 'sfid'"
    ):
        open_reference(path, ("fid", "sfid"))
    with pytest.raises(SourceError, match="expected activations or images in arr_0 for 'recall'"):
        open_reference(path, ("recall",))


def test_features_serve_all_that_compares_pools(tmp_path):
    rows = np.random.default_rng(1).normal(size=(9, 4))
    file = open_reference(save(tmp_path, activations=rows), ("fid", "precision", "recall"))
    state = MetricState.of([FID, PrecisionRecall])
    file.fill(state)
    np.testing.assert_array_equal(state[PrecisionRecall].features(), rows.astype(np.float32))
    np.testing.assert_allclose(state[FID].moments().covariance, np.cov(rows.T))


def test_statistics_of_moments_go_before_features(tmp_path):
    rows = np.random.default_rng(1).normal(size=(9, 4))
    file = open_reference(save(tmp_path, activations=rows, **statistics()), ("fid",))
    state = MetricState.of([FID])
    file.fill(state)
    np.testing.assert_array_equal(state[FID].moments().covariance, moments(4).covariance)


def test_images_alone_serve_everything(tmp_path):
    file = open_reference(save(tmp_path, arr_0=IMAGES), ALL)
    assert file.missing(ALL).keys() == {*ALL} - {"inception_score"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(5), "sigma": np.eye(5)}, r"mu \(5,\) and sigma \(5, 5\); expected \(4,\)"),
        ({"mu": np.zeros(4), "sigma": np.eye(3)}, r"sigma \(3, 3\); expected"),
        ({"mu_s": np.zeros(4), "sigma_s": np.eye(4)}, r"mu_s \(4,\) .* expected \(3,\)"),
        ({"activations": np.zeros((9, 5))}, r"activations \(9, 5\); expected \[n, 4\]"),
        ({"x": np.zeros(2)}, r"with \['x'\]; expected mu and sigma or images in arr_0"),
    ],
)
def test_other_features_are_refused(tmp_path, arrays, message):
    with pytest.raises(SourceError, match=message) as caught:
        open_reference(save(tmp_path, **arrays), ("fid",))
    assert "\n" not in str(caught.value)


def test_objects_beside_the_statistics_are_not_read(tmp_path):
    path = save(tmp_path, mu=np.zeros(4), sigma=np.eye(4), notes=np.array([{}], object))
    open_reference(path, ("fid",)).fill(MetricState.of([FID]))
    path = save(tmp_path, mu=np.array([{}] * 4, object), sigma=np.eye(4))
    with pytest.raises(SourceError, match=r"cannot be used .*allow_pickle=False"):
        open_reference(path, ("fid",)).fill(MetricState.of([FID]))


def test_a_torch_file_is_called_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "reference.pt", "w") as archive:
        archive.writestr("reference/data.pkl", b"")
    with pytest.raises(SourceError, match=r"which is a torch file; expected an ADM-style \.npz"):
        open_reference(tmp_path / "reference.pt", ("fid",))


def test_statistics_that_are_none_are_refused(tmp_path):
    path = save(tmp_path, mu=np.zeros(4), sigma=np.full((4, 4), np.nan))
    with pytest.raises(SourceError, match=r"reference\.npz', which cannot be used \(.*not finite"):
        open_reference(path, ("fid",)).fill(MetricState.of([FID]))
