"""Conversion of 8-bit images to floats on the device, with the bits of a division on the host."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

# 1/255 = 257/65536 + REST. The first product below is exact and the rounding of the second is far
# below that of the sum, so the sum rounds as the quotient does, with fused multiply-add or without.
REST = np.float32(1 / 255 - 257 / 65536)


def to_unit(
    image: UInt8[Array, "*shape"] | Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """Scales an 8-bit image to the unit interval; returns floats as they are.

    XLA turns a division by a constant into a product with its reciprocal, which differs in the last
    bit for half of the levels; so `image / 255` would not give what numpy gives.

    Args:
        image: uint8 [...], 0..255; or floats, which are in [0, 1] already.

    Returns:
        float32 [...] in [0, 1], each level rounded correctly: `data.transforms.to_float`, bit for
        bit.
    """
    if image.dtype != jnp.uint8:
        return image
    high = (image.astype(jnp.int32) * 257).astype(jnp.float32) * np.float32(2**-16)
    return high + image.astype(jnp.float32) * REST
