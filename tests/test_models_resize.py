"""Bicubic resizing, by law and against torch."""

import numpy as np
import pytest
import torch

from rae_dit.models.resize import resize_bicubic, resize_matrix


@pytest.mark.parametrize(("length", "new"), [(256, 224), (5, 13), (16, 4), (7, 7)])
def test_every_output_pixel_is_a_weighted_mean_of_four(length, new):
    matrix = resize_matrix(length, new)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert (matrix != 0).sum(axis=1).max() <= 4


def test_the_same_size_is_the_same_array():
    image = np.random.default_rng(0).random((1, 6, 6, 3), np.float32)
    assert resize_bicubic(image, 6, 6) is image


def test_resizing_back_to_front_mirrors_the_result():
    image = np.random.default_rng(1).random((1, 9, 9, 3), np.float32)
    resized = resize_bicubic(image, 5, 13)
    np.testing.assert_allclose(resize_bicubic(image[:, ::-1], 5, 13)[:, ::-1], resized, atol=1e-6)


@pytest.mark.parametrize("size", [(224, 224), (40, 300), (256, 100)])
def test_equals_torch_without_antialiasing(size):
    image = np.random.default_rng(2).random((1, 256, 256, 3), np.float32)
    reference = torch.nn.functional.interpolate(
        torch.tensor(image).permute(0, 3, 1, 2), size=size, mode="bicubic", align_corners=False
    )
    resized = resize_bicubic(image, *size)
    np.testing.assert_allclose(resized, reference.permute(0, 2, 3, 1), atol=3e-5)
