"""Image grids with row names and captions, written atomically as PNG files.

Pillow enlarges the images and writes the words. A cell of the PNG is exactly the image shown, so
nothing is resampled twice.
"""

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rae_dit.storage.files import replacing
from rae_dit.storage.places import place

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

DPI = 150
GAP = 4  # pixels of white between two images
MARGIN = 24  # pixels of white around everything
FONT, SMALL_FONT = 10, 7  # points
INK, FAINT = "#222222", "#6e6e6e"
SMALLEST, LARGEST = 96, 256  # pixels of the longer side at which an image is shown


def png_path(path: str | os.PathLike[str]) -> Path:
    """Checks the path of a picture to be written and makes its folders.

    Raises:
        ValueError: it does not end in .png.
    """
    path = place(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"picture {path}: got suffix '{path.suffix}'; expected '.png'")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_png(figure: "Figure", path: Path) -> None:
    """Writes a matplotlib figure; a crash leaves the old picture or none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def resize(image: np.ndarray) -> np.ndarray:
    """Resizes an image to the size at which it is shown.

    Below 96 pixels it is enlarged by an integer factor with a bicubic kernel, which makes strokes
    of an 8x8 digit readable. Up to 256 pixels it is unchanged; beyond, it is shrunk with a Lanczos
    kernel.

    Args:
        image: f64 [H, W, 3] in [0, 1].

    Returns:
        u8 [H', W', 3].
    """
    from PIL import Image

    levels = np.rint(image * 255).astype(np.uint8)
    height, width = levels.shape[:2]
    longer = max(height, width)
    if longer < SMALLEST:
        factor, kernel = float(-(-SMALLEST // longer)), Image.Resampling.BICUBIC
    elif longer > LARGEST:
        factor, kernel = LARGEST / longer, Image.Resampling.LANCZOS
    else:
        return levels
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(levels).resize(size, kernel))


def write_mosaic(
    path: Path,
    rows: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    *,
    captions: Sequence[str],
) -> None:
    """Writes rows of images of one size, a name left of each row, a caption below each column.

    Args:
        path: from `png_path`.
        rows: u8 [H', W', 3] each; rows may differ in length.
        names: one per row.
        captions: one per column, or empty for none.
    """
    from PIL import Image, ImageDraw

    font, small = _font(FONT), _font(SMALL_FONT)
    cell_height, cell_width = rows[0][0].shape[:2]
    left = MARGIN + _extent(names, font)[0] + 3 * GAP
    right = left + max(len(row) for row in rows) * (cell_width + GAP) - GAP
    bottom = MARGIN + len(rows) * (cell_height + GAP) - GAP
    height = bottom + (_extent(captions, small)[1] + 2 * GAP if captions else 0) + MARGIN

    sheet = Image.new("RGB", (right + MARGIN, height), "white")
    pen = ImageDraw.Draw(sheet)
    for r, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = MARGIN + r * (cell_height + GAP)
        middle = (left - 3 * GAP, y + cell_height / 2)
        pen.text(middle, name, INK, font, anchor="rm", align="right")
        for c, cell in enumerate(row):
            sheet.paste(Image.fromarray(cell), (left + c * (cell_width + GAP), y))
    for c, caption in enumerate(captions):
        center = (left + c * (cell_width + GAP) + cell_width / 2, bottom + 2 * GAP)
        pen.text(center, caption, FAINT, small, anchor="ma", align="center")
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")


@functools.cache
def _font(points: int) -> "FreeTypeFont":
    """Returns DejaVu Sans, which matplotlib brings along and which has most alphabets."""
    import matplotlib as mpl
    from PIL import ImageFont

    file = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), points * DPI / 72)


def _extent(words: Sequence[str], font: "FreeTypeFont") -> tuple[int, int]:
    """Returns width and height in pixels that hold each of some words; 0 for none."""
    from PIL import Image, ImageDraw

    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    boxes = [pen.textbbox((0, 0), text, font=font, anchor="la") for text in words]
    width, height = (max((box[side] for box in boxes), default=0) for side in (2, 3))
    return math.ceil(width), math.ceil(height)
