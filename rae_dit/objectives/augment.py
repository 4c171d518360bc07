r"""DiffAugment: differentiable augmentation of the discriminator's inputs.

Real and reconstructed images are changed at random in ways that gradients pass through, so that the
discriminator cannot learn them by heart (arXiv 2006.10738). With x the image minus 1/2,
u_k ~ U[0, 1) and means over the axes named,

    translation:  x <- x moved by whole pixels, at most `translation` of each side; 0 enters  (1)
    brightness:   x <- x + (u_1 - 1/2) / 2                                                    (2)
    saturation:   x <- m + 2 u_2 (x - m),          m the mean over channels                   (3)
    contrast:     x <- m + (u_3 + 1/2)(x - m),     m the mean of the image                    (4)
    cutout:       x <- 0 in a rectangle of `cutout` of each side, its center anywhere         (5)

(2) to (4) are "color". Images may leave [0, 1]. Each image has a key of its own,
so that what happens to it does not depend on its neighbors or on the number of devices.

Source: bytetriper/RAE `disc/diffaug.py`, where images are in [-1, 1], hence the halves here, and
where one draw decides for the whole batch of a device whether an operation is done at all.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

EXACT = jax.lax.Precision.HIGHEST


def augment(
    keys: Key[Array, " B"],
    image: Float[Array, "B H W 3"],
    *,
    probability: float,
    translation: float,
    color: bool,
    cutout: float,
) -> Float[Array, "B H W 3"]:
    """Applies equations (1) to (5), in this order.

    Args:
        keys: one for each image.
        image: float32, made for [0, 1].
        probability: of each of the three operations, for each image.
        translation: largest shift, as a share of the side; 0 for none.
        color: whether to change colors.
        cutout: side of the rectangle, as a share of the image's; 0 for none.
    """

    def one(key: Key[Array, ""], image: Float[Array, "H W 3"]) -> Float[Array, "H W 3"]:
        chance_key, translation_key, color_key, cutout_key = jax.random.split(key, 4)
        happens = jax.random.bernoulli(chance_key, probability, (3,))
        x = image - 0.5
        if translation > 0:
            x = jnp.where(happens[0], translate(translation_key, x, share=translation), x)
        if color:
            x = jnp.where(happens[1], change_colors(color_key, x), x)
        if cutout > 0:
            x = jnp.where(happens[2], cut_out(cutout_key, x, share=cutout), x)
        return x + 0.5

    return jax.vmap(one)(keys, image)


def translate(
    key: Key[Array, ""], x: Float[Array, "H W 3"], *, share: float
) -> Float[Array, "H W 3"]:
    """Shifts an image, equation (1).

    A shift is a product with a matrix of zeros and ones: exact, and its transpose is another such
    product, where that of a gather would be a scatter.
    """

    def shift(key: Key[Array, ""], side: int) -> Float[Array, "side side"]:
        largest = round(share * side)
        distance = jax.random.randint(key, (), -largest, largest + 1)
        here, there = jnp.arange(side)[:, None], jnp.arange(side)[None, :]
        return (here == there + distance).astype(jnp.float32)

    row_key, column_key = jax.random.split(key)
    rows, columns = shift(row_key, x.shape[0]), shift(column_key, x.shape[1])
    return jnp.einsum("ih,hwc,jw->ijc", rows, x, columns, precision=EXACT)


def change_colors(key: Key[Array, ""], x: Float[Array, "H W 3"]) -> Float[Array, "H W 3"]:
    """Changes brightness, saturation and contrast, equations (2) to (4)."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    x = x + (brightness - 0.5) / 2
    gray = jnp.mean(x, axis=-1, keepdims=True)
    x = gray + 2 * saturation * (x - gray)
    mean = jnp.mean(x)
    return mean + (contrast + 0.5) * (x - mean)


def cut_out(
    key: Key[Array, ""], x: Float[Array, "H W 3"], *, share: float
) -> Float[Array, "H W 3"]:
    """Blanks a rectangle, equation (5); near an edge it reaches over it."""

    def outside(key: Key[Array, ""], side: int) -> Bool[Array, " side"]:
        length = round(share * side)
        first = jax.random.randint(key, (), 0, side + 1 - length % 2) - length // 2
        pixel = jnp.arange(side)
        return (pixel < first) | (pixel >= first + length)

    row_key, column_key = jax.random.split(key)
    rows, columns = outside(row_key, x.shape[0]), outside(column_key, x.shape[1])
    return x * (rows[:, None] | columns[None, :])[..., None]
