"""How far a reconstruction is from its original, per image, in float64.

With x and y the two images on [0, 1] and means over the H W C values of one image,

    l1(x, y)   = mean |x - y|                                                                  (1)
    psnr(x, y) = -10 log10 mean (x - y)^2     in dB, as the peak is 1.                         (2)
"""

import numpy as np


def l1(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each pair of images, equation (1).

    Args:
        a: float [n, H, W, C] in [0, 1].
        b: float [n, H, W, C] in [0, 1].

    Returns:
        f64 [n] in [0, 1]; 0 for equal images.

    Raises:
        ValueError: shapes differ or lack the four axes, or values leave [0, 1].
    """
    a, b = _checked("l1", a, b)
    return np.abs(a - b).mean(axis=(1, 2, 3))


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each pair of images, equation (2).

    Args:
        a: float [n, H, W, C] in [0, 1].
        b: float [n, H, W, C] in [0, 1].

    Returns:
        f64 [n] in dB, >= 0; infinity for equal images.

    Raises:
        ValueError: shapes differ or lack the four axes, or values leave [0, 1].
    """
    a, b = _checked("psnr", a, b)
    with np.errstate(divide="ignore"):  # log10(0) = -inf is the right answer for equal images
        # 0.0 - … instead of a unary minus: two images one apart everywhere give 0.0, never -0.0.
        return 0.0 - 10.0 * np.log10(np.square(a - b).mean(axis=(1, 2, 3)))


def pool(images: np.ndarray, size: int) -> np.ndarray:
    """Images shrunk to size x size by the mean over equal square blocks.

    Undoes the nearest-neighbour enlargement of the digits exactly: the mean of equal pixels.

    Args:
        images: float [n, H, W, C], H = W a multiple of `size`, any range.
        size: side of the result in pixels, >= 1.

    Returns:
        f64 [n, size, size, C], in the range of `images`.

    Raises:
        ValueError: not four axes, not square, or a side that is no multiple of `size`.
    """
    images = np.asarray(images, np.float64)
    if (
        images.ndim != 4
        or images.shape[1] != images.shape[2]
        or size < 1
        or images.shape[1] == 0
        or images.shape[1] % size
    ):
        raise ValueError(
            f"pool: images have shape {images.shape}, expected [n, H, W, C] with H = W a "
            f"multiple of size {size}. Resize or crop them first."
        )
    count, side, _, channels = images.shape
    block = side // size
    return images.reshape(count, size, block, size, block, channels).mean(axis=(2, 4))


def _checked(where: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 4 or 0 in a.shape:
        raise ValueError(
            f"{where}: images have shapes {a.shape} and {b.shape}, expected twice the same "
            "[n, H, W, C] without empty axes. Resize the reconstruction to its original."
        )
    for name, images in (("first", a), ("second", b)):
        low, high = float(images.min()), float(images.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
            raise ValueError(
                f"{where}: the {name} images span [{low:.4g}, {high:.4g}], expected [0, 1]. "
                "Clip decoder outputs with np.clip(images, 0, 1), and scale uint8 by 1/255."
            )
    return a, b
