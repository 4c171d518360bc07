"""Laws of the per-image reconstruction errors and of pooling."""

import numpy as np
import pytest

from rae_dit.evaluation.reconstruction import l1, pool, psnr


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
    with pytest.raises(ValueError, match=rf"{measure.__name__}: images have shapes .*\(2, 8, 6, 3"):
        measure(good, good[:2])
    with pytest.raises(ValueError, match=r"images have shapes \(8, 6, 3\)"):
        measure(good[0], good[0])
    with pytest.raises(ValueError, match=r"the second images span \[.*, 255\]"):
        measure(good, np.full_like(good, 255.0))
    with pytest.raises(ValueError, match=r"the first images span \[-0.1"):
        measure(good * 0 - 0.1, good)
    with pytest.raises(ValueError, match=r"the second images span .*nan"):
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
