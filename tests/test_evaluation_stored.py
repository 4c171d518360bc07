"""Stored images: order, blocks, labels, and every kind of wrong file in one line."""

import numpy as np
import pytest
from PIL import Image

from rae_dit.data.files import SourceError
from rae_dit.evaluation.stored import open_stored
from rae_dit.sampling.npz import write_npz


def some_images(count=11, size=(6, 8)):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def save_folder(folder, images, name="{:06d}_{}.png"):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number, number % 4))
    return folder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_block_by_block(tmp_path, save):
    images = some_images()
    save(tmp_path / "a.npz", images, np.arange(11))
    stored = open_stored(tmp_path / "a.npz")
    assert (len(stored), stored.shape) == (11, (11, 6, 8, 3))
    np.testing.assert_array_equal(stored.labels, np.arange(11))
    blocks = list(stored.blocks(4))
    assert [len(block) for block in blocks] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), images)
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks(3, 5, 9))), images[5:9])


def test_the_file_of_mode_sample(tmp_path):
    images = some_images()
    write_npz(tmp_path / "a.npz", iter(images), np.arange(11) % 2)
    stored = open_stored(tmp_path / "a.npz")
    np.testing.assert_array_equal(next(stored.blocks(100)), images)
    np.testing.assert_array_equal(stored.labels, np.arange(11) % 2)


def test_a_large_npz_is_not_read_whole(tmp_path):
    """Opening and one block of 60 MB of images must not allocate them."""
    import tracemalloc

    np.savez(tmp_path / "a.npz", arr_0=np.zeros((300, 256, 256, 3), np.uint8))
    tracemalloc.start()
    next(open_stored(tmp_path / "a.npz").blocks(4, 280))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_a_folder_in_the_order_of_names(tmp_path):
    images = some_images()
    folder = save_folder(tmp_path / "samples", images)
    (folder / "grid.png").write_bytes(b"not looked at")
    (folder / "notes.txt").write_text("neither")
    stored = open_stored(folder)
    np.testing.assert_array_equal(stored.labels, np.arange(11) % 4)
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks(4))), images)
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks(4, 2, 5))), images[2:5])


def test_one_picture_and_names_without_labels(tmp_path):
    folder = save_folder(tmp_path / "samples", some_images(2), "{}.png")
    assert open_stored(folder).labels is None
    stored = open_stored(folder / "1.png")
    np.testing.assert_array_equal(next(stored.blocks(9)), some_images(2)[1:])


def test_labels_are_known_only_if_every_name_has_one(tmp_path):
    folder = save_folder(tmp_path / "samples", some_images(3))
    np.testing.assert_array_equal(open_stored(folder).labels, [0, 1, 2])
    (folder / "000001_1.png").rename(folder / "000001.png")
    assert open_stored(folder).labels is None


def make_empty_folder(path):
    path.mkdir()


def make_text(path):
    path.write_text("hello")


def make_floats(path):
    with path.open("wb") as file:
        np.savez(file, np.zeros((2, 4, 4, 3)))


def make_other_names(path):
    with path.open("wb") as file:
        np.savez(file, mu=np.zeros(3))


def make_other_labels(path):
    with path.open("wb") as file:
        np.savez(file, some_images(3), np.arange(2))


def make_no_images(path):
    with path.open("wb") as file:
        np.savez(file, some_images(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "expected an .npz, a picture or a directory"),
        (make_empty_folder, "which holds no .png, .jpg"),
        (make_text, "which is not an .npz"),
        (make_floats, r"arr_0 of float64 \[2, 4, 4, 3\]; expected uint8 \[n, H, W, 3\]"),
        (make_other_names, r"with the arrays \['mu'\]; expected images in arr_0"),
        (make_other_labels, r"labels arr_1 of int64 \[2\]; expected integers \[3\]"),
        (make_no_images, r"arr_0 of uint8 \[0, 6, 8, 3\]; expected .* n >= 1"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(SourceError, match=message) as caught:
        open_stored(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_images_of_two_sizes_are_named(tmp_path):
    folder = save_folder(tmp_path / "samples", some_images(3))
    Image.fromarray(some_images(1, (6, 9))[0]).save(folder / "000003_0.png")
    with pytest.raises(
        SourceError, match=r"000003_0.png: got 9 x 6 pixels; expected 8 x 6 as of 000000_0.png"
    ):
        list(open_stored(folder).blocks(4))
    (folder / "000003_0.png").write_bytes(b"junk")
    with pytest.raises(SourceError, match=r"000003_0.png cannot be read as an image"):
        list(open_stored(folder).blocks(4))
