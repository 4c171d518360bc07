"""Streaming writer of .npz files as ADM's evaluation reads them: arr_0 images, arr_1 labels.

`np.savez` needs all images in memory, 9.8 GB for 50,000 of 256 x 256. An .npz is a zip of .npy
files, and an .npy is a short header before the raw numbers, so images can be written one by one.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from rae_dit.storage.files import replacing

_DATE = (1980, 1, 1, 0, 0, 0)  # of the zip entries, so that the same images give the same bytes


def write_npz(
    path: Path,
    images: Iterable[UInt8[np.ndarray, "H W 3"]],
    labels: Int[np.ndarray, " n"],
) -> None:
    """Writes the file, atomically; `np.load(path)["arr_0"]` reads it.

    Args:
        path: file to write; ends in .npz.
        images: one for each label, of the same shape; one at a time is in memory.
        labels: class of each image; stored as int64.

    Raises:
        ValueError: another number of images than of labels, or images of different shapes.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        count, shape = 0, ()
        with archive.open(_entry("arr_0.npy"), "w", force_zip64=True) as file:
            for image in images:
                if count == 0:
                    shape = image.shape
                    head = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
                    np.lib.format.write_array_header_1_0(file, head)
                if image.shape != shape or image.dtype != np.uint8:
                    raise ValueError(
                        f"{path}: image {count}: got {image.dtype} {image.shape}; expected uint8 "
                        f"{shape} as before"
                    )
                file.write(np.ascontiguousarray(image).data)
                count += 1
        if count != len(labels):
            raise ValueError(f"{path}: got {count} images; expected {len(labels)}, one a label")
        with archive.open(_entry("arr_1.npy"), "w") as file:
            np.lib.format.write_array(file, np.asarray(labels, np.int64))


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, _DATE)
