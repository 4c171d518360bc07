"""What pictures are drawn with: rows of images beside their names, and files never half written.

Images are enlarged by Pillow (which matplotlib brings along) and placed pixel by pixel, so a cell
of the PNG is exactly the image and nothing is resampled twice. Words are drawn by matplotlib on a
`FigureCanvasAgg` of the picture's own: no display, and no global state of pyplot.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rae_dit.storage.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 150
GAP = 4  # pixels of white between two images
MARGIN = 24  # pixels of white around everything
FONT, SMALL_FONT = 10, 7  # points
INK, FAINT = "#222222", "#6e6e6e"
SMALLEST, LARGEST = 96, 256  # pixels of the longer side at which an image is shown


def png_path(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to be written, with its folders made.

    Raises:
        ValueError: it does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"picture {path}: suffix is '{path.suffix}'; expected '.png'. Rename it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_png(figure: "Figure", path: Path) -> None:
    """Writes a figure beside its place and moves it there when complete.

    A crash thus leaves the old picture or none, never half a one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def resize(image: np.ndarray) -> np.ndarray:
    """An image at the size it is shown.

    Below 96 pixels it is enlarged by a whole factor with a bicubic kernel: an 8x8 digit becomes
    smooth strokes, which the eye reads at once, where big squares would have to be squinted at.
    Up to 256 pixels it stays as it is; beyond, it is shrunk with a Lanczos kernel.

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
    title: str | None,
    captions: Sequence[str],
) -> None:
    """Writes rows of images of one size, a name left of each row, a caption below each column.

    Args:
        path: from `png_path`.
        rows: u8 [H', W', 3] each; rows may differ in length.
        names: one per row.
        title: a line above, or None.
        captions: one per column, or empty for none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import IdentityTransform

    figure = Figure(dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixels = IdentityTransform()  # words are placed in pixels from the bottom left

    def word(words: str, size: float, colour: str, across: str, down: str) -> "Text":
        text = figure.text(0, 0, words, fontsize=size, color=colour, parse_math=False)
        text.set(ha=across, va=down, transform=pixels)
        return text

    beside = [word(name, FONT, INK, "right", "center") for name in names]
    below = [word(caption, SMALL_FONT, FAINT, "center", "top") for caption in captions]
    above = [] if title is None else [word(title, FONT + 1, INK, "left", "top")]

    def extent(words: Sequence["Text"], axis: int) -> int:
        """Pixels of the largest of some words along an axis (0 across, 1 down), 0 for none."""
        return max(
            (int(np.ceil(w.get_window_extent(renderer).size[axis])) for w in words), default=0
        )

    cell_height, cell_width = rows[0][0].shape[:2]
    left = MARGIN + extent(beside, 0) + 3 * GAP
    top = MARGIN + (extent(above, 1) + 4 * GAP if above else 0)
    right = left + max(len(row) for row in rows) * (cell_width + GAP) - GAP
    bottom = top + len(rows) * (cell_height + GAP) - GAP
    width = max(right, left + extent(above, 0)) + MARGIN
    height = bottom + (extent(below, 1) + 2 * GAP if below else 0) + MARGIN

    sheet = np.full((height, width, 3), 255, np.uint8)
    for r, (row, name) in enumerate(zip(rows, beside, strict=True)):
        y = top + r * (cell_height + GAP)
        name.set_position((left - 3 * GAP, height - y - cell_height / 2))
        for c, cell in enumerate(row):
            x = left + c * (cell_width + GAP)
            sheet[y : y + cell_height, x : x + cell_width] = cell
    for c, caption in enumerate(below):
        caption.set_position(
            (left + c * (cell_width + GAP) + cell_width / 2, height - bottom - 2 * GAP)
        )
    for line in above:
        line.set_position((left, height - MARGIN))
    # Half a pixel more, as the renderer rounds inches times dpi down.
    figure.set_size_inches((width + 0.5) / DPI, (height + 0.5) / DPI)
    figure.figimage(sheet, 0, 0, origin="upper")
    write_png(figure, path)
