"""Image decoding and square crops: ADM's center crop and two random crops.

Pure functions. PIL is the decoder of record, so pixels equal the reference's bit for bit, given the
same JPEG library. Another one gains nothing as long as PIL resizes (docs/data.md).
"""

import functools
import io
import math
import struct
import zlib

import numpy as np
from PIL import Image

# What PIL raises on damaged files: seen on those of launch/campaigns/damaged_data.py, or standing
# in the code of its plugins.
_DAMAGE = (
    OSError,  # truncated, unreadable or of no known kind
    SyntaxError,  # PNG: broken chunk
    Image.DecompressionBombError,
    RuntimeError,  # AVIF
    *(ValueError, IndexError, OverflowError, EOFError, TypeError, KeyError, MemoryError),
    *(struct.error, zlib.error),
)
# Formats that are decoded. Of the others that PIL knows, some are given to another program (EPS to
# Ghostscript), of some only the header is read (HDF5, MPEG), and the rest holds no photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "DIB", "TGA")
# Endings of their names: those of torchvision's ImageFolder, and the others of these formats.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".pfm", ".jpe", ".jfif", ".apng", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".avif", ".avifs", ".dib", ".tga", ".icb", ".vda", ".vst"),
)
# PIL gives some of the 16 bit gray images of these formats as 32 bit integers.
_16_BITS_AS_32 = ("PNG", "PPM")
_TIFF_BITS = 258  # tag: bits per sample
# A damaged header can promise a strip of one pixel by many thousands, which would be scaled up to
# gigabytes.
_LONGEST = 100
# Stage 1 crops from an image of this many times the side of the crop (384 for 256).
_ROOM = 1.5
# Of the random resized crop: least share of the area, largest ratio of the sides, attempts.
_LEAST_AREA = 0.08
_RATIO = 4 / 3
_TRIES = 10
# Above this share of rows, leaving out the others costs more than it saves.
_WORTH_CUTTING = 0.9


class BadImageError(ValueError):
    """Bytes that are not a complete image."""


def decode(content: bytes) -> Image.Image:
    """Decodes an image file.

    Gray, palette, CMYK and alpha images become RGB by `Image.convert`, which drops alpha. The
    orientation that EXIF may ask for is ignored, because the reference ignores it. Gray images of
    16 bits keep their upper 8; `Image.convert` would cut them off at 255, which is white.

    Args:
        content: a whole file: JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, JPEG 2000, AVIF or TGA.

    Returns:
        An RGB image.

    Raises:
        BadImageError: the content is empty, cut off, damaged or no image, one side is more than
            100 times the other, or the pixels are integers of 32 bits or floats, which have no
            known range.

    Source:
        `torchvision.datasets.folder.pil_loader`: `Image.open(file).convert("RGB")`.
    """
    if not content:
        raise BadImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as file:
            image = _as_rgb(file)
    except _DAMAGE as error:
        # PIL names the buffer by its address, which no one can use.
        reason = str(error).split(" <_io.BytesIO")[0] or type(error).__name__
        raise BadImageError(reason) from error
    if max(image.size) > _LONGEST * min(image.size):
        raise BadImageError(f"{image.width} x {image.height} pixels is no picture")
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """Lists the formats that this copy of PIL decodes."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _as_rgb(file: Image.Image) -> Image.Image:
    """Converts to RGB, without the copy for images already in RGB.

    Raises:
        BadImageError: the pixels have no known range.
    """
    if file.mode == "RGB":
        file.load()  # what is damaged is found here, while the file is open
        return file
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in _16_BITS_AS_32):
        bits = 12 if getattr(file, "tag_v2", {}).get(_TIFF_BITS) == (12,) else 16
        levels = np.asarray(file).astype(np.int64) >> (bits - 8)
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if file.mode in ("I", "F"):
        kind = "integers of 32 bits" if file.mode == "I" else "floats"
        raise BadImageError(f"its pixels are {kind}, whose range is unknown; save 8 or 16 bits")
    return file.convert("RGB")


def adm_center_crop(image: Image.Image, size: int) -> np.ndarray:
    """Scales the shorter side to `size` and cuts out the middle: the crop of ADM, DiT and RAE.

    Halves with a box filter while the shorter side is at least `2 * size`, then scales the rest
    bicubically; smaller images are enlarged. An odd margin leaves the extra pixel on the
    right and at the bottom.

    Args:
        image: RGB.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3].

    Source:
        `center_crop_arr` of openai/guided-diffusion, `image_datasets.py`.
    """
    while min(image.size) >= 2 * size:
        image = _resize(image, image.width // 2, image.height // 2, Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    return _window(image, width, height, (width - size) // 2, (height - size) // 2, size)


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Scales the shorter side to 1.5 times `size` and cuts out a random square: stage 1's crop.

    Args:
        image: RGB.
        size: side of the result in pixels.
        rng: exactly two numbers are drawn from it, for top and left; all places are as likely.

    Returns:
        uint8 [size, size, 3].

    Source:
        bytetriper/RAE, stage 1: torchvision's `Resize(384, bicubic)`, `RandomCrop(256)`; for
        other sizes `int(1.5 * size)`. The places are drawn by numpy, so they differ from torch's.
    """
    shorter = int(_ROOM * size)
    # Like torchvision: the longer side is cut to a whole number, not rounded.
    longer = int(shorter * max(image.size) / min(image.size))
    is_wide = image.width >= image.height
    width, height = (longer, shorter) if is_wide else (shorter, longer)
    top = int(rng.integers(height - size + 1))
    left = int(rng.integers(width - size + 1))
    return _window(image, width, height, left, top, size)


def random_resized_crop(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts out a rectangle of random area, shape and place, and scales it to a square.

    Its area is uniform in 0.08 to 1 of the image's, its ratio of width to height log-uniform in 3/4
    to 4/3. Where ten such rectangles in a row stick out of a long image, the largest one of an
    allowed ratio is taken from the middle.

    Args:
        image: RGB.
        size: side of the result in pixels.
        rng: up to 22 numbers are drawn from it.

    Returns:
        uint8 [size, size, 3].

    Source:
        Szegedy et al. 2015 (Inception), with the numbers of torchvision's `RandomResizedCrop`,
        which linear probes train on; bicubic as in facebookresearch/dinov2.
    """
    pixels = image.width * image.height
    width, height = _largest(image, _RATIO)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    for _ in range(_TRIES):
        area = pixels * rng.uniform(_LEAST_AREA, 1)
        ratio = np.exp(rng.uniform(-np.log(_RATIO), np.log(_RATIO)))
        wide, high = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < wide <= image.width and 0 < high <= image.height:
            width, height = wide, high
            left = int(rng.integers(image.width - width + 1))
            top = int(rng.integers(image.height - height + 1))
            break
    cut = image.crop((left, top, left + width, top + height))
    return np.asarray(_resize(cut, size, size, Image.Resampling.BICUBIC))


def _largest(image: Image.Image, ratio: float) -> tuple[int, int]:
    """Returns the size of the largest part with the longer side at most `ratio` of the other."""
    shorter = min(image.size)
    longest = round(shorter * ratio)
    return min(image.width, longest), min(image.height, longest)


def _window(
    image: Image.Image, width: int, height: int, left: int, top: int, size: int
) -> np.ndarray:
    """Cuts a square out of the image scaled bicubically to width x height, computing little more.

    Columns that are cut off before the rows are resampled do not touch those that stay, nor do rows
    of the image that none of the square is made of.
    """
    first, last = _rows_of(image.height, height, top, size)
    if last - first > _WORTH_CUTTING * image.height:
        columns = image.resize((width, image.height), Image.Resampling.BICUBIC)
        columns = columns.crop((left, 0, left + size, image.height))
    else:
        part = image.crop((0, first, image.width, last))
        part = part.resize((width, last - first), Image.Resampling.BICUBIC)
        # Black where nothing is needed: with another height, PIL would round its weights otherwise.
        columns = Image.new("RGB", (size, image.height))
        columns.paste(part.crop((left, 0, left + size, last - first)), (0, first))
    rows = columns.resize((size, height), Image.Resampling.BICUBIC)
    return np.asarray(rows)[top : top + size]


def _rows_of(rows: int, scaled: int, top: int, size: int) -> tuple[int, int]:
    """Computes the range of rows that a window in `rows`, scaled to `scaled`, depends on."""
    scale = rows / scaled
    reach = 2 * max(scale, 1.0)  # of the bicubic kernel
    first, last = math.floor(top * scale - reach), math.ceil((top + size) * scale + reach) + 1
    return max(first, 0), min(last, rows)


def _resize(image: Image.Image, width: int, height: int, resample: Image.Resampling) -> Image.Image:
    """Resizes columns first, then rows, as PIL always did until version 13.

    Since then it takes the rows of some tall images first (python-pillow/Pillow#9549), and because
    it rounds in between, up to a few levels differ. Two calls give the same bits with all versions.
    """
    return image.resize((width, image.height), resample).resize((width, height), resample)
