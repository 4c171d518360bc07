"""`rae_dit.open_images`: what was written to files comes back as (image, label)."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.tar_files import write_tar

import rae_dit
from rae_dit.data.files import SourceError

SIDE, CLASSES = 16, 3
# Squares of the size that is asked for, without loss: the centre crop changes no pixel of them.
PICTURES = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = [0, 0, 1, 1, 2, 2]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(source: str, root):
    """Writes the pictures as one kind of source; returns its path."""
    if source == "folder":
        for number, (pixels, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
            (root / f"class-{label}").mkdir(exist_ok=True)
            (root / f"class-{label}" / f"{number}.png").write_bytes(png(pixels))
        return root
    if source == "tar":
        pairs = enumerate(zip(PICTURES, LABELS, strict=True))
        members = [
            member
            for n, (pixels, label) in pairs
            for member in ((f"{n}.png", png(pixels)), (f"{n}.cls", str(label).encode()))
        ]
        write_tar(root / "a.tar", members)
        return root
    table = pa.table({"image": [png(pixels) for pixels in PICTURES], "label": LABELS})
    pq.write_table(table, root / "train-0.parquet")
    return str(root / "train-*")


@pytest.mark.parametrize("source", ["folder", "tar", "huggingface"])
def test_images_and_labels_are_those_of_the_files(source, tmp_path):
    path = write(source, tmp_path)
    images = rae_dit.open_images(source, path, num_classes=CLASSES, image_size=SIDE)
    assert len(images) == 6
    assert images.num_classes == CLASSES
    for number in (0, 3, 5, -1):
        image, label = images[number]
        assert image.dtype == np.uint8
        assert type(label) is int
        np.testing.assert_array_equal(image, PICTURES[number])
        assert label == LABELS[number]
    pairs = list(images)
    np.testing.assert_array_equal([image for image, _ in pairs], PICTURES)
    assert [label for _, label in pairs] == LABELS
    assert [label for _, label in pickle.loads(pickle.dumps(images))] == LABELS


def test_slices_are_sequences_and_indices_have_ends(tmp_path):
    images = rae_dit.open_images("folder", write("folder", tmp_path), num_classes=3, image_size=16)
    some = images[4:0:-2]
    assert len(some) == 2
    assert [label for _, label in some] == [LABELS[4], LABELS[2]]
    np.testing.assert_array_equal(some[1][0], PICTURES[2])
    for index in (6, -7):
        with pytest.raises(IndexError, match=f"^index: got {index}; expected one of 6 images"):
            images[index]


def test_a_damaged_file_is_named_and_not_replaced(tmp_path):
    images = rae_dit.open_images("folder", write("folder", tmp_path), num_classes=3, image_size=16)
    (tmp_path / "class-1" / "2.png").write_bytes(b"not a picture")
    np.testing.assert_array_equal(images[3][0], PICTURES[3])
    with pytest.raises(OSError, match=r"class-1/2\.png cannot be decoded: "):
        images[2]
    with pytest.raises(OSError, match=r"class-1/2\.png"):
        list(images)


def test_sources_without_files():
    digits = rae_dit.open_images("digits", num_classes=10, image_size=8, split="validation")
    assert len(digits) == 359  # docs/quickstart.md: a fifth of 1,797
    image, label = digits[0]
    assert (image.shape, image.dtype, label) == ((8, 8, 3), np.uint8, digits.records[0]["label"])
    synthetic = rae_dit.open_images("synthetic", num_classes=7, image_size=20)
    assert [label for _, label in synthetic[5:9]] == [5, 6, 0, 1]
    assert synthetic[0][0].shape == (20, 20, 3)


@pytest.mark.parametrize(
    ("source", "path", "classes", "message"),
    [
        ("imagenet", "", 3, "^source: got 'imagenet'; expected one of digits, synthetic, folder"),
        ("folder", "{root}/none", 3, "none', which does not exist"),
        ("folder", "{root}", 4, "= 4 of them"),
        ("digits", "{root}", 10, "^path: got .*; expected '' because 'digits' reads no files"),
        ("digits", "", 11, "^num_classes: got 11; expected 10$"),
    ],
)
def test_errors_say_what_is_there(source, path, classes, message, tmp_path):
    write("folder", tmp_path)
    with pytest.raises(SourceError, match=message):
        rae_dit.open_images(source, path.format(root=tmp_path), num_classes=classes, image_size=16)


def test_a_label_that_no_class_has_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"with the labels 0 to 2; expected 0 to 1, because"):
        rae_dit.open_images("tar", write("tar", tmp_path), num_classes=2, image_size=16)


def test_what_is_left_out_is_said(tmp_path, caplog):
    path = write("folder", tmp_path)
    (path / "class-0" / "notes.txt").write_text("")
    rae_dit.open_images("folder", path, num_classes=3, image_size=16)
    assert f"{path}: 6 images of 3 classes from 6 files; left out: 1 .txt" in caplog.text


def test_jax_is_not_needed(tmp_path):
    write("folder", tmp_path)
    program = f"""
import sys
import rae_dit
images = rae_dit.open_images("folder", {str(tmp_path)!r}, num_classes=3, image_size=16)
assert sum(int(image.sum()) for image, _ in images) == {PICTURES.sum()}
assert not {{"jax", "flax", "grain"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
