"""Pictures of a run: samples by class, reconstructions beside originals, loss curves.

Each is one PNG, written whole or not at all (`canvas.write_png`). matplotlib is imported when the
first one is drawn.
"""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from rae_dit.evaluation.curves import draw_losses, read_losses
from rae_dit.evaluation.image_grid import DPI, FONT, INK, png_path, resize, write_mosaic, write_png
from rae_dit.evaluation.reconstruction import psnr


def sample_grid(
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    columns: int,
    title: str | None = None,
) -> None:
    """Writes a PNG of samples: one row per class present, its name at the left.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        images: float [n, H, W, 3]; clipped to [0, 1]. Small ones are enlarged (`canvas.resize`).
        labels: int [n], the class of each image.
        class_names: name of each class; `class_names[label]` is written.
        columns: most images shown of one class, the first ones; classes with fewer leave blanks.
        title: a line above the rows.

    Raises:
        ValueError: a wrong shape, NaN, a label without a name, columns < 1, or not .png.
    """
    path = png_path(path)
    images, labels = _clipped("sample_grid", images), np.asarray(labels)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"sample_grid: labels are {labels.dtype} {labels.shape}; expected integers "
            f"[{len(images)}]. Pass one integer label per image."
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            f"sample_grid: labels span {labels.min()}..{labels.max()} but there are "
            f"{len(class_names)} class names. Name every class."
        )
    _require_columns("sample_grid", columns)
    present = np.unique(labels)
    rows = [[resize(image) for image in images[labels == label][:columns]] for label in present]
    write_mosaic(path, rows, [class_names[label] for label in present], title=title, captions=())


def reconstruction_grid(
    path: str | os.PathLike[str],
    originals: np.ndarray,
    reconstructions: np.ndarray,
    *,
    columns: int,
    title: str | None = None,
) -> None:
    """Writes a PNG with rows original, reconstruction, difference, and the PSNR below each pair.

    The difference is the mean over channels of |original - reconstruction|, black for 0 and
    white for the largest one shown, which its label gives.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        originals: float [n, H, W, 3]; clipped to [0, 1].
        reconstructions: float [n, H, W, 3]; clipped to [0, 1].
        columns: most pairs shown, the first ones.
        title: a line above the rows.

    Raises:
        ValueError: shapes wrong or different, NaN, columns < 1, or not .png.
    """
    path = png_path(path)
    originals = _clipped("reconstruction_grid", originals)
    reconstructions = _clipped("reconstruction_grid", reconstructions)
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"reconstruction_grid: originals {originals.shape} and reconstructions "
            f"{reconstructions.shape} differ; expected one shape. Resize the reconstructions."
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
        title=title,
        captions=["exact" if math.isinf(d) else f"{d:.1f} dB" for d in decibels],
    )


def loss_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, str | os.PathLike[str]],
    *,
    units: Mapping[str, str] | None = None,
) -> None:
    """Writes a PNG with one panel per run: training and validation loss over steps, log scale.

    How the lines look is said in `curves.draw_losses`.

    Args:
        path: where the picture goes; ends in .png, missing folders are made.
        curves: title of each run -> its metrics.jsonl, as `read_losses` takes it.
        units: title -> unit of that run's loss, such as "nats"; None leaves the axis at "loss".

    Raises:
        FileNotFoundError: a metrics.jsonl does not exist.
        ValueError: no runs, units for other runs, not .png, or what `read_losses` raises.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path = png_path(path)
    if not curves:
        raise ValueError("loss_curves: got no runs; expected at least one. Pass {title: file}.")
    if units is not None and set(units) != set(curves):
        raise ValueError(
            f"loss_curves: units are for {sorted(units)}; expected {sorted(curves)}. "
            "Give every run its unit, or none."
        )
    apart = ConstrainedLayoutEngine(wspace=0.08)  # so that a last value keeps off the next axis
    figure = Figure(figsize=(4.4 * len(curves), 3.2), dpi=DPI, layout=apart)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (title, file) in zip(panels, curves.items(), strict=True):
        axes.set_title(title, fontsize=FONT + 1, loc="left", color=INK, parse_math=False)
        unit = "" if units is None else f" ({units[title]})"
        axes.set_ylabel(f"loss{unit}", fontsize=FONT, color=INK)
        axes.set_xlabel("step (optimiser updates)", fontsize=FONT, color=INK)
        draw_losses(axes, read_losses(file))
    write_png(figure, path)


def _clipped(where: str, images: np.ndarray) -> np.ndarray:
    """The images in float64, clipped to [0, 1]; refuses what cannot be shown."""
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(
            f"{where}: images have shape {images.shape}; expected [n, H, W, 3] without empty "
            "axes. Repeat a grey image over three channels."
        )
    if not np.isfinite(images).all():
        raise ValueError(
            f"{where}: images hold NaN or infinity; expected finite values. "
            "Look for the cause in the sampler or the decoder; a picture would hide it."
        )
    return np.clip(images, 0.0, 1.0)


def _require_columns(where: str, columns: int) -> None:
    if columns < 1:
        raise ValueError(f"{where}: columns is {columns}; expected >= 1. Show at least one image.")
