"""The .npz of images: read by numpy, the same bytes each time, one image in memory."""

import tracemalloc

import numpy as np
import pytest

from rae_dit.sampling.npz import write_npz


def images(count, side=8):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def test_numpy_reads_what_was_streamed(tmp_path):
    stacked, labels = images(5), np.array([3, 1, 4, 1, 5])
    write_npz(tmp_path / "a.npz", iter(stacked), labels)
    with np.load(tmp_path / "a.npz") as read:
        assert read.files == ["arr_0", "arr_1"]
        assert read["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(read["arr_0"], stacked)
        np.testing.assert_array_equal(read["arr_1"], labels)
        assert read["arr_1"].dtype == np.int64


def test_equal_images_give_equal_bytes(tmp_path):
    write_npz(tmp_path / "a.npz", images(3), np.arange(3))
    write_npz(tmp_path / "b.npz", images(3), np.arange(3))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_memory_does_not_grow_with_the_images(tmp_path):
    image = images(1, side=128)[0]
    tracemalloc.start()
    write_npz(tmp_path / "a.npz", (image.copy() for _ in range(400)), np.zeros(400, int))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 400 * image.nbytes
    assert peak < 20 * image.nbytes


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([*images(2)], "got 2 images; expected 3, one a label"),
        (
            [*images(2), images(1, side=4)[0]],
            r"image 2: got uint8 \(4, 4, 3\); expected uint8 \(8,",
        ),
        ([images(1)[0].astype(np.int32)] * 3, r"image 0: got int32"),
    ],
)
def test_a_stream_that_does_not_fit_leaves_no_file(tmp_path, stream, message):
    with pytest.raises(ValueError, match=message):
        write_npz(tmp_path / "a.npz", stream, np.arange(3))
    assert list(tmp_path.iterdir()) == []
