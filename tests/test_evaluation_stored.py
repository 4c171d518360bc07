"""Stored images: order, blocks, labels, and every kind of wrong file in one line."""

import json
import logging
import pickle
import zipfile

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
    (folder / "manifest.json").write_text(json.dumps({"num_samples": len(images)}))
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


def test_a_folder_in_the_order_of_names(tmp_path, caplog):
    images = some_images()
    folder = save_folder(tmp_path / "samples", images)
    (folder / "grid.png").write_bytes(b"not looked at")
    (folder / "notes.txt").write_text("neither")
    with caplog.at_level(logging.INFO, "rae_dit"):
        stored = open_stored(folder)
    assert caplog.messages == [f"{folder}: 11 pictures; left out: 1 .txt"]
    np.testing.assert_array_equal(stored.labels, np.arange(11) % 4)
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks(4))), images)
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks(4, 2, 5))), images[2:5])


def test_one_picture_and_names_without_labels(tmp_path):
    folder = save_folder(tmp_path / "samples", some_images(2), "{}.png")
    assert open_stored(folder).labels is None
    stored = open_stored(folder / "1.png")
    np.testing.assert_array_equal(next(stored.blocks(9)), some_images(2)[1:])


@pytest.mark.parametrize("manifest", [None, "{}", "not JSON", "[1]"])
def test_a_trailing_number_is_a_label_only_where_mode_sample_made_it(tmp_path, manifest):
    """Cameras and downloads number their files IMG_0001, IMG_0002, ... as well."""
    folder = save_folder(tmp_path / "samples", some_images(3))
    assert open_stored(folder).labels is not None
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    assert open_stored(folder).labels is None


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


def make_torch(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", b"0000")


def make_old_torch(path):
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))


def make_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def make_single(path):
    with path.open("wb") as file:
        np.save(file, some_images(2))


def make_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("000.png", b"")


def make_pickled(path):
    with path.open("wb") as file:
        np.savez(file, np.array([{}, {}], object))


def make_absurd(path):
    """A header that promises 30 terabytes, before 12 bytes."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": (10**7, 1000, 1000, 3)}
        np.lib.format.write_array_header_1_0(file, head)
        file.write(bytes(12))


def make_cut_off(path):
    with path.open("wb") as file:
        np.savez(file, some_images(8))
    path.write_bytes(path.read_bytes()[:700])


def make_no_images(path):
    with path.open("wb") as file:
        np.savez(file, some_images(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "which does not exist; expected an .npz with images in arr_0, a pict"),
        (make_empty_folder, "which holds no .jpg, .jpeg"),
        (make_text, "which is not an .npz"),
        (make_floats, r"arr_0 of float64 \[2, 4, 4, 3\]; expected uint8 \[n, H, W, 3\]"),
        (make_other_names, r"with the arrays \['mu'\]; expected images in arr_0"),
        (make_other_labels, r"labels arr_1 of int64 \[2\]; expected integers \[3\]"),
        (make_torch, "which is a torch file; expected an .npz"),
        (make_old_torch, "which is not an .npz but a pickle, as torch wrote"),
        (make_pointer, "not an .npz but a Git LFS pointer; 'git lfs pull'"),
        (make_single, r"not an .npz but a single array \(.npy\)"),
        (make_zip, "a zip of 000.png without arrays"),
        (make_pickled, r"arr_0 of object \[2\]; expected uint8"),
        (make_absurd, r"arr_0.npy holds 12 bytes; expected 30,000,000,000,000 for uint8"),
        (make_cut_off, "which is not an .npz; expected"),
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
