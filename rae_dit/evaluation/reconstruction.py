"""Reconstruction errors per image: L1, PSNR and SSIM, in float64.

With x and y the two images on [0, 1] and means over the H W C values of one image,

    l1(x, y)   = mean |x - y|                                                                  (1)
    psnr(x, y) = -10 log10 mean (x - y)^2     in dB, as the peak is 1.                         (2)

Structural similarity compares means m, variances s^2 and covariance c of the two images in a window
that slides over each channel, weighted by a Gaussian of deviation 1.5 pixels and 11 pixels wide;
with C1 = 0.01^2 and C2 = 0.03^2,

    ssim(x, y) = mean over windows inside the image, and channels, of

                 (2 m_x m_y + C1) (2 c + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2)).    (3)

Source: Wang et al. 2004, IEEE TIP 13(4), "Image quality assessment", for (3) and its constants.
"""

import math
from collections.abc import Sequence

import numpy as np

SSIM_WINDOW = 11  # pixels
SSIM_DEVIATION = 1.5  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # keep the fractions of (3) finite in flat dark regions


def errors(originals: np.ndarray, results: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the errors of each pair of images, of the measures that their size allows.

    Args:
        originals: float [n, H, W, C] in [0, 1]; n may be 0.
        results: float [n, H, W, C] in [0, 1].

    Returns:
        Name of the measure -> f64 [n]; "ssim" only where a window fits; none for no images.
    """
    if not len(originals):
        return {}
    found = {"l1": l1(originals, results), "psnr": psnr(originals, results)}
    if min(originals.shape[1:3]) >= SSIM_WINDOW:
        found["ssim"] = ssim(originals, results)
    return found


def means(parts: Sequence[dict[str, float]]) -> dict[str, int | float | None]:
    """Computes means over the images of all processes; None for an infinite one (PSNR).

    Args:
        parts: of each process: "images", their number, and the sums of the measures.
    """
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    count = int(total.pop("images"))
    found = {name: value / count for name, value in total.items()}
    return {"images": count} | {n: v if math.isfinite(v) else None for n, v in found.items()}


def l1(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the mean absolute difference of each pair of images, equation (1).

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
    """Computes the peak signal-to-noise ratio of each pair of images, equation (2).

    Args:
        a: float [n, H, W, C] in [0, 1].
        b: float [n, H, W, C] in [0, 1].

    Returns:
        f64 [n] in dB, >= 0; infinity for equal images.

    Raises:
        ValueError: shapes differ or lack the four axes, or values leave [0, 1].
    """
    a, b = _checked("psnr", a, b)
    with np.errstate(divide="ignore"):  # equal images: log10(0) = -inf is intended
        # 0.0 - … instead of a unary minus: two images one apart everywhere give 0.0, never -0.0.
        return 0.0 - 10.0 * np.log10(np.square(a - b).mean(axis=(1, 2, 3)))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the structural similarity of each pair of images, equation (3).

    Args:
        a: float [n, H, W, C] in [0, 1], H and W at least 11.
        b: float [n, H, W, C] in [0, 1].

    Returns:
        f64 [n] in [-1, 1]; 1 for equal images.

    Raises:
        ValueError: shapes differ, lack the four axes or are too small, or values leave [0, 1].
    """
    a, b = _checked("ssim", a, b)
    if min(a.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(
            f"ssim: got images of {a.shape[1]} x {a.shape[2]} pixels; expected at least "
            f"{SSIM_WINDOW} x {SSIM_WINDOW}, its window"
        )
    rows, columns = _windows(a.shape[1]), _windows(a.shape[2])

    def mean(x: np.ndarray) -> np.ndarray:
        return np.einsum("ih,jw,nhwc->nijc", rows, columns, x, optimize=True)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def _windows(length: int) -> np.ndarray:
    """Returns [length - 10, length]: Gaussian weights of each window that fits, summing to 1."""
    distance = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-0.5 * np.square(distance / SSIM_DEVIATION))
    matrix = np.zeros((length - SSIM_WINDOW + 1, length))
    for row in range(len(matrix)):
        matrix[row, row : row + SSIM_WINDOW] = weights / weights.sum()
    return matrix


def pool(images: np.ndarray, size: int) -> np.ndarray:
    """Shrinks images to size x size by the mean over equal square blocks.

    Exactly inverts the nearest-neighbor enlargement of the digits.

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
            f"pool: got images of shape {images.shape}; expected [n, H, W, C] with H = W a "
            f"multiple of size {size}"
        )
    count, side, _, channels = images.shape
    block = side // size
    return images.reshape(count, size, block, size, block, channels).mean(axis=(2, 4))


def _checked(where: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 4 or 0 in a.shape:
        raise ValueError(
            f"{where}: got images of shapes {a.shape} and {b.shape}; expected twice the same "
            "[n, H, W, C] without empty axes"
        )
    for name, images in (("first", a), ("second", b)):
        low, high = float(images.min()), float(images.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
            raise ValueError(
                f"{where}: got {name} images in [{low:.4g}, {high:.4g}]; expected [0, 1], "
                "clipped and not as uint8"
            )
    return a, b
