"""Files are whole or absent, and images keep their look when resized."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from rae_dit.evaluation.image_grid import png_path, resize, write_png


def test_small_images_grow_by_a_whole_factor_and_large_ones_shrink():
    assert resize(np.zeros((8, 8, 3))).shape == (96, 96, 3)
    assert resize(np.zeros((28, 14, 3))).shape == (112, 56, 3)
    assert resize(np.zeros((100, 256, 3))).shape == (100, 256, 3)
    assert resize(np.zeros((512, 1024, 3))).shape == (128, 256, 3)


def test_shown_at_their_own_size_images_are_rounded_to_the_nearest_level():
    levels = np.random.default_rng(0).integers(1, 255, (128, 100, 3))
    for off in (-0.4, 0.0, 0.4):
        np.testing.assert_array_equal(resize((levels + off) / 255), levels)


def test_enlarging_keeps_means_and_is_smooth():
    image = np.random.default_rng(1).uniform(size=(8, 8, 3))
    large = resize(image) / 255
    assert large.mean() == pytest.approx(image.mean(), abs=0.01)
    steps = np.abs(np.diff(large, axis=0)).max()  # nearest neighbour would keep whole steps
    assert steps < 0.3 * np.abs(np.diff(image, axis=0)).max()


def test_a_crash_while_writing_leaves_the_old_picture_and_no_litter(tmp_path, monkeypatch):
    path = png_path(tmp_path / "new" / "a.png")
    write_png(Figure(), path)
    old = path.read_bytes()
    assert old.startswith(b"\x89PNG")

    def torn(self, file):
        file.write_bytes(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", torn)
    with pytest.raises(OSError, match="disk full"):
        write_png(Figure(), path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got suffix '.jpg'; expected '.png'"):
        png_path(tmp_path / "a.jpg")
