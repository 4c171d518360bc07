"""Laws of the per-image reconstruction errors and of pooling."""

import numpy as np
import pytest

from rae_dit.evaluation.reconstruction import l1, pool, psnr, ssim


def _images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(3, 8, 6, 3)).astype(np.float32)


def test_l1_of_a_constant_offset_is_the_offset_image_by_image():
    offsets = np.array([0.0, 0.25, 0.5], np.float32)[:, None, None, None]
    half = _images(0) / 2
    np.testing.assert_allclose(l1(half, half + offsets), [0.0, 0.25, 0.5], atol=1e-7)
    assert l1(half, half).dtype == np.float64


def test_psnr_of_a_constant_offset_has_the_closed_form():
    offsets = np.array([0.1, 0.01, 0.001])[:, None, None, None]
    half = _images(1).astype(np.float64) / 2
    np.testing.assert_allclose(psnr(half, half + offsets), [20.0, 40.0, 60.0], rtol=1e-9)


def test_psnr_at_its_ends():
    black = np.zeros((1, 4, 4, 3), np.float32)
    assert psnr(black, black).tolist() == [np.inf]
    assert str(psnr(black, black + 1)[0]) == "0.0"


def test_errors_do_not_depend_on_the_order():
    a, b = _images(2), _images(3)
    np.testing.assert_array_equal(l1(a, b), l1(b, a))
    np.testing.assert_array_equal(psnr(a, b), psnr(b, a))


def test_accumulates_in_float64():
    """A float32 sum of 3 million values of 0.1 is off in the fifth digit or so."""
    tenth = np.full((1, 1024, 1024, 3), 0.1, np.float32)
    np.testing.assert_allclose(l1(tenth, 0 * tenth), np.float64(np.float32(0.1)), rtol=1e-12)


@pytest.mark.parametrize("measure", [l1, psnr])
def test_bad_images_are_named(measure):
    good = _images(4)
    with pytest.raises(
        ValueError, match=rf"{measure.__name__}: got images of shapes .*\(2, 8, 6, 3"
    ):
        measure(good, good[:2])
    with pytest.raises(ValueError, match=r"got images of shapes \(8, 6, 3\)"):
        measure(good[0], good[0])
    with pytest.raises(ValueError, match=r"got second images in \[.*, 255\]"):
        measure(good, np.full_like(good, 255.0))
    with pytest.raises(ValueError, match=r"got first images in \[-0.1"):
        measure(good * 0 - 0.1, good)
    with pytest.raises(ValueError, match=r"got second images in .*nan"):
        measure(good, good * np.nan)


def test_pool_undoes_enlargement_and_keeps_the_mean_and_the_place():
    small = _images(5)[:, :6]
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(pool(large, 6), small)
    mixed = np.random.default_rng(6).uniform(size=(2, 24, 24, 3))
    np.testing.assert_allclose(pool(mixed, 6)[1, 2, 5], mixed[1, 8:12, 20:24].mean(axis=(0, 1)))


@pytest.mark.parametrize("shape", [(2, 12, 12, 3), (2, 16, 8, 3), (16, 16, 3), (2, 0, 0, 3)])
def test_pool_refuses_what_does_not_divide(shape):
    with pytest.raises(ValueError, match="multiple of size 8"):
        pool(np.zeros(shape), 8)


def _one_window(x, y):
    """Equation (3) for one channel of one window of 11 x 11 pixels, as it is written."""
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / np.outer(g, g).sum()
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, c = (
        (w * (x - mx) ** 2).sum(),
        (w * (y - my) ** 2).sum(),
        (w * (x - mx) * (y - my)).sum(),
    )
    c1, c2 = 1e-4, 9e-4
    return (2 * mx * my + c1) * (2 * c + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_ssim_is_its_definition_averaged_over_windows_and_channels():
    x, y = np.random.default_rng(7).uniform(size=(2, 2, 13, 12, 3))
    windows = [(i, j, k) for i in range(3) for j in range(2) for k in range(3)]
    for image in range(2):
        cut = [(slice(i, i + 11), slice(j, j + 11), k) for i, j, k in windows]
        expected = np.mean([_one_window(x[image][c], y[image][c]) for c in cut])
        assert ssim(x, y)[image] == pytest.approx(expected, rel=1e-9)


def test_ssim_at_its_ends():
    x = np.random.default_rng(8).uniform(size=(1, 20, 20, 3))
    np.testing.assert_allclose(ssim(x, x), [1.0], rtol=1e-12)
    assert ssim(x, 1 - x)[0] < -0.5
    half, tenth = np.full((1, 16, 16, 3), 0.5), np.full((1, 16, 16, 3), 0.1)
    np.testing.assert_allclose(ssim(half, tenth), [(0.1 + 1e-4) / (0.26 + 1e-4)], rtol=1e-9)
    assert ssim(x, np.roll(x, 1, axis=1))[0] < 0.2


def test_ssim_needs_room_for_its_window():
    with pytest.raises(ValueError, match="10 x 30 pixels; expected at least 11 x 11"):
        ssim(np.zeros((1, 10, 30, 3)), np.zeros((1, 10, 30, 3)))
