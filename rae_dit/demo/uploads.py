"""Pictures that visitors upload: their reconstruction and its difference."""

import io
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rae_dit.config import ConfigError
from rae_dit.config.check import invalid_value
from rae_dit.data.images import BadImageError, adm_center_crop, decode
from rae_dit.data.transforms import to_float, to_uint8
from rae_dit.demo.images import precision
from rae_dit.demo.model import Model, state_of
from rae_dit.evaluation.reconstruction import l1, psnr
from rae_dit.sampling import codec

MAX_PIXELS = 50_000_000  # of an upload; decoded it takes three bytes each


class Reconstruction(NamedTuple):
    """A picture, what the autoencoder makes of it, and how far the two are apart.

    Attributes:
        original: cropped to the square that the model sees.
        result: decode(encode(original)).
        difference: mean over channels of their distance; white is `largest`.
        largest: largest distance, of 1.
        text: measures in one line.
    """

    original: UInt8[np.ndarray, "H W 3"]
    result: UInt8[np.ndarray, "H W 3"]
    difference: UInt8[np.ndarray, "H W 3"]
    largest: float
    text: str


def read_picture(path: Path, size: int, *, most_bytes: int) -> UInt8[np.ndarray, "H W 3"]:
    """Reads the middle square of a picture, scaled.

    Args:
        path: of the file.
        size: side in pixels to make.
        most_bytes: size of the file that is allowed.

    Raises:
        ConfigError: it is too large, or no picture.
    """
    length = path.stat().st_size
    if length > most_bytes:
        raise invalid_value(
            "picture", f"{length / 1e6:.1f} MB", f"at most {most_bytes / 1e6:.0f} MB"
        )
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as header:
            pixels = header.width * header.height
    except Image.DecompressionBombError:
        pixels = MAX_PIXELS + 1
    except Exception:  # PIL's own are of many kinds; what it is, `decode` tells
        pixels = 0
    if pixels > MAX_PIXELS:
        raise ConfigError(f"picture: got one of too many pixels; expected at most {MAX_PIXELS:,}")
    try:
        return adm_center_crop(decode(content), size)
    except BadImageError as error:
        raise ConfigError(f"picture: got a file that is none ({error}); expected one") from error


def reconstruct(model: Model, picture: UInt8[np.ndarray, "H W 3"]) -> Reconstruction:
    """Encodes and decodes a picture of the model's size."""
    graph, parameters = state_of(model.rae)
    with precision(model):
        made = np.asarray(codec.reconstruct(graph, parameters, jnp.asarray(picture[None])))[0]
    original = to_float(picture)
    distance = np.abs(original - made).mean(axis=-1)
    largest = float(distance.max())
    shown = np.repeat((distance / (largest or 1.0))[..., None], 3, axis=-1).astype(np.float32)
    decibels = float(psnr(original[None], made[None])[0])
    quality = "exact" if math.isinf(decibels) else f"PSNR {decibels:.1f} dB"
    text = f"{quality}, mean |difference| {float(l1(original[None], made[None])[0]):.4f}"
    text += f", white = {largest:.2g}"
    return Reconstruction(picture, to_uint8(made), to_uint8(shown), largest, text)
