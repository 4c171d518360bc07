r"""How sharp reconstructions are, beside the images they are of, in float64.

With D the discrete Laplacian, 4 x - (its four neighbors), at the pixels that have all four, and
means over all pixels, channels and images,

    sharpness(y, x) = mean (D y)^2 / mean (D x)^2                                              (1)

is 1 for images as sharp as the real ones and 0 for flat ones. A decoder that does not know averages
what it holds possible, which lowers it. Noise raises it, so it is read beside an error.
"""

import numpy as np


def sharpness(reconstructions: np.ndarray, images: np.ndarray) -> float:
    """Equation (1).

    Args:
        reconstructions: float [n, H, W, C], H and W at least 3.
        images: the same shape.

    Returns:
        A number >= 0; infinity for flat images.

    Raises:
        ValueError: shapes differ, or there is no pixel with four neighbors.
    """
    y, x = np.asarray(reconstructions, np.float64), np.asarray(images, np.float64)
    if y.shape != x.shape or y.ndim != 4 or min(y.shape[1:3]) < 3 or 0 in y.shape:
        raise ValueError(
            f"sharpness: got images of shapes {y.shape} and {x.shape}; expected twice the same "
            "[n, H, W, C] of at least 3x3 pixels."
        )
    with np.errstate(divide="ignore"):
        return float(np.mean(laplacian(y) ** 2) / np.mean(laplacian(x) ** 2))


def laplacian(images: np.ndarray) -> np.ndarray:
    """Four times a pixel less its four neighbors: f64 [n, H - 2, W - 2, C]."""
    middle = images[:, 1:-1, 1:-1]
    beside = images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    return 4 * middle - images[:, :-2, 1:-1] - images[:, 2:, 1:-1] - beside
