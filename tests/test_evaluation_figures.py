"""The pictures show what they were given, where they say they do."""

import numpy as np
import pytest
from PIL import Image

from rae_dit.evaluation.figures import reconstruction_grid, sample_grid

GAP = 4
CELL = 96  # pixels at which an 8x8 image is shown


def _smooth_images(seed: int, count: int) -> np.ndarray:
    """Images [n, 8, 8, 3] in which each channel is another gradient, so no two look alike."""
    corners = np.random.default_rng(seed).uniform(size=(count, 2, 2, 3))
    ramp = np.stack([np.linspace(1, 0, 8), np.linspace(0, 1, 8)])
    return np.einsum("nabc,ax,by->nxyc", corners, ramp, ramp).astype(np.float32)


def _read(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), np.float64) / 255


def _cells(picture: np.ndarray, rows: int, columns: int, below: int = 0) -> list[list[np.ndarray]]:
    """The cells of a grid, shrunk back to 8x8; they end 24 pixels before the right edge."""
    pitch = CELL + GAP
    left = picture.shape[1] - 24 - columns * pitch + GAP
    top = picture.shape[0] - 24 - below - rows * pitch + GAP
    block = CELL // 8
    return [
        [
            picture[top + r * pitch :, left + c * pitch :][:CELL, :CELL]
            .reshape(8, block, 8, block, 3)
            .mean(axis=(1, 3))
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def _is_ink(region: np.ndarray) -> bool:
    return bool((region < 0.5).any())


def test_sample_grid_puts_each_class_in_its_row_in_order(tmp_path):
    images = _smooth_images(0, 8)
    labels = np.array([2, 0, 2, 0, 2, 2, 0, 2])
    sample_grid(tmp_path / "a.png", images, labels, ["zero", "one", "two"], columns=4)
    picture = _read(tmp_path / "a.png")
    cells = _cells(picture, rows=2, columns=4)  # class 1 has no image, so no row
    expected = {(0, 0): 1, (0, 1): 3, (0, 2): 6, (1, 0): 0, (1, 1): 2, (1, 2): 4, (1, 3): 5}
    for (row, column), index in expected.items():
        np.testing.assert_allclose(cells[row][column], images[index], atol=0.03)
    assert (cells[0][3] == 1.0).all()  # three zeros leave the fourth cell blank
    assert picture.shape[0] == 2 * (CELL + GAP) - GAP + 2 * 24


def test_sample_grid_writes_the_names_left_of_their_rows(tmp_path):
    images, labels = _smooth_images(1, 2), np.array([0, 1])
    for file, names in [("short", ["a", "b"]), ("long", ["a", "a much longer name"])]:
        sample_grid(tmp_path / f"{file}.png", images, labels, names, columns=1)
    short, long = (_read(tmp_path / f"{f}.png") for f in ("short", "long"))
    left = short.shape[1] - 24 - CELL
    for row in range(2):
        name = short[24 + row * (CELL + GAP) :][:CELL, :left]
        assert _is_ink(name[30:66])
        assert not _is_ink(name[:30])
        assert not _is_ink(name[66:])
    assert long.shape[1] > short.shape[1] + 100
    assert long.shape[0] == short.shape[0]
    for picture in (short, long):  # nothing is cut off: the margin stays white
        for edge in (picture[:20], picture[-20:], picture[:, :20], picture[:, -20:]):
            assert not _is_ink(edge)


def test_values_outside_the_range_are_clipped_not_wrapped(tmp_path):
    images = np.zeros((2, 8, 8, 3)) + np.array([-3.0, 7.0])[:, None, None, None]
    sample_grid(tmp_path / "a.png", images, np.array([0, 1]), ["0", "1"], columns=1)
    ((black,), (white,)) = _cells(_read(tmp_path / "a.png"), rows=2, columns=1)
    assert (black == 0).all()
    assert (white == 1).all()


def test_sample_grid_refuses_labels_without_names_or_images(tmp_path):
    images, path = _smooth_images(2, 3), tmp_path / "a.png"
    with pytest.raises(
        ValueError, match=r"labels 0\.\.2; expected 0\.\.1, as there are 2 class names"
    ):
        sample_grid(path, images, np.array([0, 1, 2]), ["0", "1"], columns=3)
    with pytest.raises(ValueError, match=r"labels -1\.\.1; expected"):
        sample_grid(path, images, np.array([0, 1, -1]), ["0", "1"], columns=3)
    with pytest.raises(ValueError, match=r"labels of int64 \(2,\); expected integers \[3\]"):
        sample_grid(path, images, np.array([0, 1]), ["0", "1"], columns=3)
    with pytest.raises(ValueError, match="got columns 0"):
        sample_grid(path, images, np.array([0, 1, 1]), ["0", "1"], columns=0)
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\); expected"):
        sample_grid(path, images[..., 0], np.array([0, 1, 1]), ["0", "1"], columns=3)
    with pytest.raises(ValueError, match="NaN or infinity"):
        sample_grid(path, images * np.nan, np.array([0, 1, 1]), ["0", "1"], columns=3)
    assert not path.exists()


def test_reconstruction_grid_shows_original_reconstruction_and_difference(tmp_path):
    originals, reconstructions = _smooth_images(3, 3), _smooth_images(4, 3)
    reconstruction_grid(tmp_path / "a.png", originals, reconstructions, columns=2)
    picture = _read(tmp_path / "a.png")
    # The PSNR below the columns takes room: what is left over from the cells and the margins.
    below = picture.shape[0] - 2 * 24 - 3 * (CELL + GAP) + GAP
    assert 10 < below < 40
    assert _is_ink(picture[-24 - below : -20, picture.shape[1] // 2 :])
    cells = _cells(picture, rows=3, columns=2, below=below)
    difference = np.abs(originals - reconstructions).mean(axis=-1)[:2]
    for column in range(2):
        np.testing.assert_allclose(cells[0][column], originals[column], atol=0.03)
        np.testing.assert_allclose(cells[1][column], reconstructions[column], atol=0.03)
        shown = cells[2][column].mean(axis=-1)
        np.testing.assert_allclose(shown, difference[column] / difference.max(), atol=0.06)


def test_equal_pairs_have_a_black_difference(tmp_path):
    images = _smooth_images(5, 1)
    with np.errstate(invalid="raise"):  # 0 / 0 would only happen to come out black
        reconstruction_grid(tmp_path / "a.png", images, images, columns=1)
    picture = _read(tmp_path / "a.png")
    left = picture.shape[1] - 24 - CELL
    black = (picture[:, left : left + CELL] == 0).all(axis=(1, 2)).sum()
    assert black == CELL
    with pytest.raises(ValueError, match=r"\(1, 4, 8, 3\); expected one shape"):
        reconstruction_grid(tmp_path / "a.png", images, images[:, :4], columns=1)
