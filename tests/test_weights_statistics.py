"""Latent statistics in both forms."""

import numpy as np
import pytest
import torch
from support.golden_files import GOLDEN

from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.statistics import read_statistics, write_statistics


def statistics():
    rng = np.random.default_rng(0)
    return {
        "mean": rng.standard_normal((2, 2, 3)).astype(np.float32),
        "variance": rng.random((2, 2, 3), np.float32),
    }


def test_ours_are_read_back_with_their_provenance(tmp_path):
    given = statistics()
    write_statistics(tmp_path / "s.npz", **given, count=7, provenance='{"source": "digits"}')
    found = read_statistics(tmp_path / "s.npz", 2, 3)
    np.testing.assert_array_equal(found.mean, given["mean"])
    np.testing.assert_array_equal(found.variance, given["variance"])
    assert (found.count, found.provenance) == (7, '{"source": "digits"}')


def test_the_official_form_is_channels_first_both_ways(tmp_path):
    given = statistics()
    write_statistics(tmp_path / "s.pt", **given, count=7, provenance="")
    official = torch.load(tmp_path / "s.pt", weights_only=True)
    np.testing.assert_array_equal(official["var"], given["variance"].transpose(2, 0, 1))
    found = read_statistics(tmp_path / "s.pt", 2, 3)
    np.testing.assert_array_equal(found.mean, given["mean"])
    np.testing.assert_array_equal(found.variance, given["variance"])
    golden = torch.load(GOLDEN / "rae_mae_stat.pt", weights_only=True)
    found = read_statistics(GOLDEN / "rae_mae_stat.pt", 4, 48)
    np.testing.assert_array_equal(found.mean[1, 2], golden["mean"][:, 1, 2])


def test_a_missing_half_is_nought_or_one_as_in_the_reference(tmp_path):
    torch.save({"mean": None, "var": torch.full((3, 2, 2), 4.0)}, tmp_path / "s.pt")
    found = read_statistics(tmp_path / "s.pt", 2, 3)
    assert (found.mean == 0).all()
    assert (found.variance == 4).all()
    torch.save({"mean": torch.ones(3, 2, 2), "var": None}, tmp_path / "s.pt")
    assert (read_statistics(tmp_path / "s.pt", 2, 3).variance == 1).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mean": torch.ones(3, 2, 1), "var": torch.ones(3, 2, 2)}, "of one shape"),
        ({"average": torch.ones(3, 2, 2)}, "expected a dict of mean and var"),
        (
            {"mean": torch.ones(3, 2, 2), "var": torch.ones(3, 2, 2), "n": 3},
            r"got \['n'\]; expected mean and var alone",
        ),
        ({"mean": np.ones((3, 2, 2)), "var": torch.ones(3, 2, 2)}, "expected a tensor or None"),
        ({"mean": 0.5, "var": torch.ones(3, 2, 2)}, "mean: got 0.5; expected a tensor or None"),
        ({"mean": torch.ones(3, 2, 2), "var": -torch.ones(3, 2, 2)}, "negative"),
        ({"mean": torch.full((3, 2, 2), torch.nan), "var": torch.ones(3, 2, 2)}, "not finite"),
        (
            {"mean": torch.ones(3, 4, 4), "var": torch.ones(3, 4, 4)},
            r"mean: got shape \(4, 4, 3\); expected \(2, 2",
        ),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(WeightsError, match=message):
        read_statistics(tmp_path / "s.pt", 2, 3)


@pytest.mark.parametrize("name", ["s.npz", "s.pt"])
def test_a_file_that_is_not_there_is_said_to_be(name, tmp_path):
    with pytest.raises(WeightsError, match=rf"got .{tmp_path / name}., which does not exist"):
        read_statistics(tmp_path / name, 2, 3)


def test_other_npz_files_are_refused(tmp_path):
    np.savez(tmp_path / "s.npz", mean=np.ones(3))
    with pytest.raises(WeightsError, match=r"got \['mean'\]; expected"):
        read_statistics(tmp_path / "s.npz", 2, 3)
    (tmp_path / "s.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(WeightsError, match=r"is damaged.*BadZipFile"):
        read_statistics(tmp_path / "s.npz", 2, 3)
    with pytest.raises(WeightsError, match=r"expected a name in \.npz or \.pt"):
        write_statistics(tmp_path / "s.txt", **statistics(), count=1, provenance="")


def test_git_lfs_pointers_and_numbers_that_are_none_are_one_line(tmp_path):
    for name in ("s.npz", "s.pt"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        with pytest.raises(WeightsError, match="Git LFS pointer"):
            read_statistics(tmp_path / name, 2, 3)
    np.savez(tmp_path / "s.npz", mean="x", variance=1.0, count="many", provenance="")
    with pytest.raises(WeightsError, match=r"s\.npz is damaged.*ValueError"):
        read_statistics(tmp_path / "s.npz", 2, 3)
