"""The measure of sharpness where its value is known."""

import numpy as np
import pytest

from launch.campaigns.sharpness import sharpness


def test_blur_lowers_it_by_what_the_blur_takes_from_each_frequency():
    """A wave of period 4 along a side has Laplacian (2 - 2 cos(pi/2)) x = 2 x."""
    x = np.tile(np.cos(np.pi / 2 * np.arange(18)), (1, 18, 1))[..., None]
    np.testing.assert_allclose(sharpness(x, x), 1)
    np.testing.assert_allclose(sharpness(0.25 * x + 7, x), 1 / 16)
    slower = np.tile(np.cos(np.pi / 4 * np.arange(18)), (1, 18, 1))[..., None]
    wanted = (2 - 2 * np.cos(np.pi / 4)) ** 2 / 2**2
    np.testing.assert_allclose(sharpness(slower, x), wanted, rtol=1e-9)
    along, down = (wave[:, :12, :12] for wave in (x, x.swapaxes(1, 2)[:, :, :12]))
    np.testing.assert_allclose(sharpness(down, along), 1)
    np.testing.assert_allclose(sharpness(np.zeros_like(x), x), 0)


def test_impossible_images_are_refused():
    x = np.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="twice the same"):
        sharpness(x, x[:, :4])
    with pytest.raises(ValueError, match="at least 3x3"):
        sharpness(x[:, :2], x[:, :2])
