"""A faster JPEG decoder where there is one, on the condition that nobody can tell.

simplejpeg (optional) calls the same library as PIL, libjpeg-turbo, without going through files and
scan lines. Both bring a copy of it, so equal pixels are not certain: they are compared once in
every process, on one picture of each kind, and simplejpeg is left alone if one number differs.
"""

import functools
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

_SIDES = ((64, 48), (37, 51))  # whole blocks, and parts of blocks at both edges


def decode_as_pil(content: bytes) -> Image.Image | None:
    """Decode a JPEG file that PIL knows to be RGB or grey.

    Args:
        content: the whole file.

    Returns:
        The RGB image, equal to PIL's. None if there is no decoder that is proven to give it, or
        it found anything odd: what counts as damaged is for PIL to say.
    """
    decode = proven_decoder()
    if decode is None:
        return None
    try:
        pixels = decode(content)
        # Not `fromarray`, which blackens the image before it fills it.
        image = Image.new("RGB", (pixels.shape[1], pixels.shape[0]), None)
        image.frombytes(pixels)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return image


@functools.cache
def proven_decoder() -> Callable[[bytes], np.ndarray] | None:
    """The decoder of simplejpeg, if it is installed and gives PIL's pixels."""
    try:
        import simplejpeg
    except ImportError:
        return None
    if not hasattr(simplejpeg, "decode_jpeg"):  # half a module: its import failed in another thread
        return None
    # strict: a warning of the library is an error. The other settings are the exact ones of PIL.
    decode = functools.partial(
        simplejpeg.decode_jpeg, colorspace="RGB", fastdct=False, fastupsample=False, strict=True
    )
    return decode if all(_is_equal(decode, sample) for sample in _samples()) else None


def _is_equal(decode: Callable[[bytes], np.ndarray], content: bytes) -> bool:
    try:
        pixels = decode(content)
    except Exception:  # whatever another version of a package that is not required raises
        return False
    with Image.open(io.BytesIO(content)) as image:
        return np.array_equal(pixels, np.asarray(image.convert("RGB")))


def _samples() -> Iterator[bytes]:
    """Files of every kind: colour subsampling, grey, progressive, coarse and fine."""
    for width, height in _SIDES:
        noise = np.random.default_rng(0).normal(0, 40, (height, width, 3))
        wave = np.sin(np.arange(width) / 5)[None, :, None] * np.array([90, 60, -80])
        colour = Image.fromarray((128 + noise + wave).clip(0, 255).astype(np.uint8))
        for image in (colour, colour.convert("L")):
            for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                for quality, progressive in ((95, False), (30, True)):
                    buffer = io.BytesIO()
                    image.save(
                        buffer,
                        "JPEG",
                        quality=quality,
                        progressive=progressive,
                        subsampling=subsampling,
                    )
                    yield buffer.getvalue()
