"""Figures of a run: samples by class, and reconstructions beside their originals.

Each is one PNG, written whole or not at all.
"""

import math
import os
from collections.abc import Sequence

import numpy as np

from rae_dit.evaluation.image_grid import png_path, resize, write_mosaic
from rae_dit.evaluation.reconstruction import psnr


def sample_grid(
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    columns: int,
) -> None:
    """Writes a PNG of samples: one row per class present, its name at the left.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        images: float [n, H, W, 3]; clipped to [0, 1]; resized by `image_grid.resize`.
        labels: int [n], the class of each image.
        class_names: name of each class; `class_names[label]` is written.
        columns: most images shown of one class, the first ones; classes with fewer leave blanks.

    Raises:
        ValueError: a wrong shape, NaN, a label without a name, columns < 1, or not .png.
    """
    path = png_path(path)
    images, labels = _clipped("sample_grid", images), np.asarray(labels)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"sample_grid: got labels of {labels.dtype} {labels.shape}; expected integers "
            f"[{len(images)}]"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            f"sample_grid: got labels {labels.min()}..{labels.max()}; expected 0.."
            f"{len(class_names) - 1}, as there are {len(class_names)} class names"
        )
    _require_columns("sample_grid", columns)
    present = np.unique(labels)
    rows = [[resize(image) for image in images[labels == label][:columns]] for label in present]
    write_mosaic(path, rows, [class_names[label] for label in present], captions=())


def reconstruction_grid(
    path: str | os.PathLike[str],
    originals: np.ndarray,
    reconstructions: np.ndarray,
    *,
    columns: int,
) -> None:
    """Writes a PNG with rows original, reconstruction, difference, and the PSNR below each pair.

    The difference is the mean over channels of |original - reconstruction|, black for 0 and
    white for the largest one shown, which its label gives.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        originals: float [n, H, W, 3]; clipped to [0, 1].
        reconstructions: float [n, H, W, 3]; clipped to [0, 1].
        columns: most pairs shown, the first ones.

    Raises:
        ValueError: shapes wrong or different, NaN, columns < 1, or not .png.
    """
    path = png_path(path)
    originals = _clipped("reconstruction_grid", originals)
    reconstructions = _clipped("reconstruction_grid", reconstructions)
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"reconstruction_grid: got originals {originals.shape} and reconstructions "
            f"{reconstructions.shape}; expected one shape"
        )
    _require_columns("reconstruction_grid", columns)
    originals, reconstructions = originals[:columns], reconstructions[:columns]
    difference = np.abs(originals - reconstructions).mean(axis=-1, keepdims=True)
    largest = float(difference.max())
    # Equal pairs stay black: there is nothing to stretch.
    stretched = np.repeat(difference / (largest if largest > 0 else 1.0), 3, axis=-1)
    scale = f"white = {largest:.2g}" if largest > 0 else "zero everywhere"
    decibels = psnr(originals, reconstructions)
    write_mosaic(
        path,
        [[resize(image) for image in row] for row in (originals, reconstructions, stretched)],
        ["original", "reconstruction", f"|difference|\n{scale}"],
        captions=["exact" if math.isinf(d) else f"{d:.1f} dB" for d in decibels],
    )


def _clipped(where: str, images: np.ndarray) -> np.ndarray:
    """Returns the images in float64, clipped to [0, 1]; raises ValueError if not images."""
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(
            f"{where}: got images of shape {images.shape}; expected [n, H, W, 3] without empty axes"
        )
    if not np.isfinite(images).all():
        raise ValueError(f"{where}: got NaN or infinity; expected finite images")
    return np.clip(images, 0.0, 1.0)


def _require_columns(where: str, columns: int) -> None:
    if columns < 1:
        raise ValueError(f"{where}: got columns {columns}; expected >= 1")
