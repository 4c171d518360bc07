"""Laws of the crops."""

import numpy as np
import pytest
from PIL import Image

from rae_dit.data.images import (
    _rows_of,
    _window,
    adm_center_crop,
    random_crop,
    random_resized_crop,
)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def box(x: float) -> float:
    return float(-0.5 < x <= 0.5)


def bicubic(x: float) -> float:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized(image: np.ndarray, new: int, kernel, support: float) -> np.ndarray:
    """Rows of a float image resampled, one output row at a time, then rounded to 0..255."""
    old = len(image)
    scale = max(old / new, 1.0)  # a shrinking filter is as much wider
    rows = []
    for row in range(new):
        centre = (row + 0.5) * old / new
        first = max(int(centre - support * scale + 0.5), 0)
        last = min(int(centre + support * scale + 0.5), old)
        weight = np.array([kernel((i + 0.5 - centre) / scale) for i in range(first, last)])
        rows.append(np.tensordot(weight / weight.sum(), image[first:last], 1))
    return np.clip(np.floor(np.array(rows) + 0.5), 0, 255)


def slow_adm(image: np.ndarray, size: int) -> np.ndarray:
    """SEMANTICS 4.1 in numpy, without PIL: [H, W, 3] -> [size, size, 3]."""
    image = image.astype(np.float64)
    while min(image.shape[:2]) >= 2 * size:
        columns = image.shape[1] // 2
        image = resized(image.swapaxes(0, 1), columns, box, 0.5).swapaxes(0, 1)
        image = resized(image, image.shape[0] // 2, box, 0.5)
    scale = size / min(image.shape[:2])
    height, width = round(image.shape[0] * scale), round(image.shape[1] * scale)
    image = resized(image.swapaxes(0, 1), width, bicubic, 2.0).swapaxes(0, 1)
    image = resized(image, height, bicubic, 2.0)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


TALL = (31, 90)  # PIL 13 resizes rows first here, older ones and we columns
SIZES = [
    (16, 16),  # nothing to do
    (31, 24),
    (24, 31),
    (32, 32),  # exactly twice: one halving
    (33, 35),  # odd: halving drops no pixel but mixes
    (31, 30),  # just below twice
    TALL,
    (67, 131),  # two halvings
    (5, 3),  # enlarged
    (1, 1),
    (17, 16),  # an odd margin
    (16, 19),
]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("size", [16, 15])
def test_adm_crop_is_the_slow_one(shape, size):
    image = picture(*shape)
    fast = adm_center_crop(image, size)
    assert fast.shape == (size, size, 3)
    assert fast.dtype == np.uint8
    # PIL's weights are whole numbers: now and then it rounds to the other side of one half.
    np.testing.assert_allclose(fast, slow_adm(np.asarray(image), size), atol=1)


@pytest.mark.parametrize("shape", [shape for shape in SIZES if shape != TALL])
def test_adm_crop_is_that_of_guided_diffusion_to_the_bit(shape):
    image = small = picture(*shape)
    while min(*small.size) >= 2 * 16:
        small = small.resize(tuple(x // 2 for x in small.size), resample=Image.BOX)
    scale = 16 / min(*small.size)
    small = small.resize(tuple(round(x * scale) for x in small.size), resample=Image.BICUBIC)
    array = np.array(small)
    y, x = (array.shape[0] - 16) // 2, (array.shape[1] - 16) // 2
    np.testing.assert_array_equal(adm_center_crop(image, 16), array[y : y + 16, x : x + 16])


@pytest.mark.parametrize(
    ("shape", "scaled"),
    [
        ((31, 24), (31, 24)),
        ((48, 60), (24, 30)),
        ((61, 50), (29, 24)),  # 24 * 61 / 50 = 29.28, cut
        ((50, 59), (24, 28)),  # 28.32
        ((7, 5), (33, 24)),  # 33.6, cut, not rounded
        ((24, 24), (24, 24)),
    ],
)
def test_random_crop_cuts_from_one_and_a_half_times_the_size(shape, scaled):
    image = picture(*shape)
    whole = np.asarray(image.resize(scaled, Image.Resampling.BICUBIC))
    crop = random_crop(image, 16, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    top, left = rng.integers(scaled[1] - 15), rng.integers(scaled[0] - 15)
    np.testing.assert_array_equal(crop, whole[top : top + 16, left : left + 16])


def test_crops_that_leave_out_rows_equal_whole_resizes_to_the_bit():
    rng, left_out = np.random.default_rng(0), 0
    for _ in range(300):
        image, size = picture(*rng.integers(1, 120, 2)), int(rng.integers(1, 50))
        width, height = map(int, rng.integers(size, 4 * size + 1, 2))
        left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
        whole = image.resize((width, image.height), Image.Resampling.BICUBIC)
        whole = np.asarray(whole.resize((width, height), Image.Resampling.BICUBIC))
        found = _window(image, width, height, left, top, size)
        np.testing.assert_array_equal(found, whole[top : top + size, left : left + size])
        first, last = _rows_of(image.height, height, top, size)
        left_out += last - first <= 0.9 * image.height
    assert left_out > 100


def test_random_crop_reaches_every_place_equally():
    image, rng = picture(24, 26), np.random.default_rng(0)  # 9 x 11 places
    whole = np.asarray(image)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (16, 16, 3)).reshape(11 * 9, -1)
    where = {window.tobytes(): place for place, window in enumerate(windows)}
    counts = np.zeros(11 * 9)
    for _ in range(3000):
        counts[where[random_crop(image, 16, rng).tobytes()]] += 1
    assert counts.min() > 8  # 30 on average, four standard deviations below
    assert counts.max() < 56


def test_random_resized_crop_takes_any_area_shape_and_place():
    column, row = np.meshgrid(np.arange(240), np.arange(180))
    image = Image.fromarray(np.stack([column, row, 0 * row], axis=-1).astype(np.uint8))
    rng = np.random.default_rng(0)
    crops = np.stack([random_resized_crop(image, 16, rng) for _ in range(400)]).astype(float)
    assert crops.shape == (400, 16, 16, 3)
    # The colours are the places: what a step of one pixel means, times sixteen, is the side.
    width = 16 * np.diff(crops[:, 8, 4:12, 0]).mean(1)
    height = 16 * np.diff(crops[:, 4:12, 8, 1], axis=1).mean(1)
    area, ratio = width * height / (240 * 180), width / height
    assert 0.07 < area.min() < 0.1
    assert 0.9 < area.max() < 1.02
    drawn = rng.uniform(0.08, 1, 10_000)
    shape = np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3), 10_000))
    fits = (drawn * 180 * shape <= 240) & (drawn * 240 / shape <= 180)
    for share in (0.25, 0.5, 0.75):
        assert abs(np.quantile(area, share) - np.quantile(drawn[fits], share)) < 0.05
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.38
    assert abs(np.median(np.log(ratio))) < 0.06
    left = crops[:, 8, 8, 0] - width / 2
    assert left.min() < 5
    assert (left + width).max() > 235


def test_random_resized_crop_of_a_strip_is_its_middle():
    for shape, middle in [((400, 10), (193, 0, 206, 10)), ((10, 400), (0, 193, 10, 206))]:
        image = picture(*shape)
        expected = image.crop(middle).resize((16, 16), Image.Resampling.BICUBIC)
        found = random_resized_crop(image, 16, np.random.default_rng(0)).astype(int)
        assert np.abs(found - np.asarray(expected)).max() <= 1  # one pass after the other rounds
