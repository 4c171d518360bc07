r"""Image resizing that reproduces torch's bicubic and TensorFlow 1's bilinear kernels.

Encoders were trained on images resized bicubically without antialiasing. An output pixel i reads
the input at its own center (half-pixel centers),

    u = (i + 1/2) n_in / n_out - 1/2                                        (1)

and weighs the four pixels floor(u) - 1 ... floor(u) + 2 by Keys' kernel with a = -3/4,

    k(d) = (a + 2) |d|^3 - (a + 3) |d|^2 + 1              for |d| <= 1      (2)
    k(d) = a |d|^3 - 5 a |d|^2 + 8 a |d| - 4 a            for 1 < |d| < 2   (3)

where pixels outside the image repeat its edge. The kernel does not widen when an image is made
smaller, so it then skips pixels: that is what "no antialiasing" means. Values may leave [0, 1].

The Inception network of FID resizes bilinearly. There an output pixel i reads the input at

    u = i n_in / n_out,                                                     (4)

between floor(u) and its right neighbor: no half-pixel centers, and no antialiasing either.

Resizing is linear and separable, hence two constant matrices of a few entries a row.

`jax.image.resize(..., "cubic")` has a = -1/2 and antialiases by default; on images in [0, 1] the
difference is up to 0.24 (SEMANTICS 4.1).

Source: `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`; Keys, IEEE Trans.
ASSP 29 (1981). `tf.compat.v1.image.resize_bilinear(align_corners=False)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

A = -0.75


def resize_matrix(length: int, new_length: int) -> Float[np.ndarray, "new old"]:
    """Returns the float32 matrix that resizes one axis bicubically; every row sums to 1."""
    position = (np.arange(new_length) + 0.5) * (length / new_length) - 0.5  # (1)
    first = np.floor(position).astype(int) - 1
    matrix = np.zeros((new_length, length))
    for tap in range(4):
        pixel = first + tap
        weight = cubic_kernel(np.abs(position - pixel))
        np.add.at(matrix, (np.arange(new_length), pixel.clip(0, length - 1)), weight)
    return matrix.astype(np.float32)


def cubic_kernel(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Evaluates Keys' kernel at distances in [0, 2]: equations (2) and (3)."""
    d = distance
    near = (A + 2) * d**3 - (A + 3) * d**2 + 1
    far = A * d**3 - 5 * A * d**2 + 8 * A * d - 4 * A
    return np.where(d <= 1, near, far)


def resize_bicubic(
    image: Float[Array, "B H W C"], height: int, width: int
) -> Float[Array, "B height width C"]:
    """Resizes a batch of images bicubically; returns it untouched when the size is the same.

    Args:
        image: any range; the result may overshoot it by about a sixth of its span.
        height: new height in pixels.
        width: new width in pixels.

    Returns:
        float32 images; products are computed in full float32 on every platform.
    """
    if image.shape[1:3] == (height, width):
        return image
    rows = resize_matrix(image.shape[1], height)
    columns = resize_matrix(image.shape[2], width)
    return apply_matrices(rows, columns, image)


def apply_matrices(
    rows: Float[np.ndarray, "height H"],
    columns: Float[np.ndarray, "width W"],
    image: Float[Array, "B H W C"],
) -> Float[Array, "B height width C"]:
    """Resizes by one matrix an axis, in full float32."""
    exact = jax.lax.Precision.HIGHEST
    image = jnp.einsum("ih,bhwc->biwc", rows, image.astype(jnp.float32), precision=exact)
    return jnp.einsum("jw,biwc->bijc", columns, image, precision=exact)


def resize_like_tensorflow1(image: Float[Array, "B H W C"], side: int) -> Float[Array, "B s s C"]:
    """Resizes a batch of images to side x side bilinearly: equation (4).

    Args:
        image: any range, which the result does not leave.
        side: new height and width in pixels.

    Returns:
        float32 images; products are computed in full float32 on every platform.
    """
    rows, columns = (bilinear_matrix(length, side) for length in image.shape[1:3])
    return apply_matrices(rows, columns, image)


def bilinear_matrix(length: int, new_length: int) -> Float[np.ndarray, "new old"]:
    """Returns the float32 matrix of equation (4); every row sums to 1."""
    position = np.arange(new_length) * (length / new_length)
    low = np.floor(position).astype(int)
    rows = np.arange(new_length)
    matrix = np.zeros((new_length, length))
    np.add.at(matrix, (rows, low), 1 - (position - low))
    np.add.at(matrix, (rows, np.minimum(low + 1, length - 1)), position - low)
    return matrix.astype(np.float32)
