r"""Latents in fewer bits, as a cache keeps them: float32, bfloat16, or float8 with scales.

In float8 (e4m3: 3 bits of mantissa, up to 448) each channel c of a latent z has a scale of its own,

    s_c = max_hw |z_hwc| / 448,      q = float8(z / s),      z ~ q s                          (1)

so that nothing overflows, and |q s - z| <= max(|z| / 16, s 2^-10).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rae_dit.architecture import LatentStorage

FLOAT8_LARGEST = 448.0


def pack(latent: Float[Array, "B h w D"], storage: LatentStorage) -> dict[str, Array]:
    """Rounds latents to how they are stored.

    Args:
        latent: float32, finite.
        storage: "fp32", "bf16", or "fp8".

    Returns:
        {"latent": [B,h,w,D] of that dtype}, and for "fp8" {"scale": float32 [B,D]} of (1).
    """
    match storage:
        case "fp32":
            return {"latent": latent}
        case "bf16":
            return {"latent": latent.astype(jnp.bfloat16)}
    largest = jnp.max(jnp.abs(latent), axis=(1, 2))
    scale = jnp.where(largest > 0, largest / FLOAT8_LARGEST, 1.0)
    # Clipped, because the quotient of the largest element may round to more than 448: NaN there.
    scaled = jnp.clip(latent / scale[:, None, None], -FLOAT8_LARGEST, FLOAT8_LARGEST)
    return {"latent": scaled.astype(jnp.float8_e4m3fn), "scale": scale}


def unpack(stored: dict[str, Array]) -> Float[Array, "B h w D"]:
    """Returns stored latents as float32.

    Args:
        stored: as `pack` returns it; other entries are not looked at.
    """
    latent = stored["latent"].astype(jnp.float32)
    return latent * stored["scale"][:, None, None] if "scale" in stored else latent
