"""Multi-head self-attention with rotary positions and a choice of attention kernels."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.layers import Axes, Dtype, LayerNorm, Linear, RMSNorm
from rae_dit.models.odd_length import masked_attention, odd_length_attention, three_products
from rae_dit.models.platform import target_devices
from rae_dit.models.rotary import Rope, apply_rope

HALF = (jnp.bfloat16, jnp.float16)
SPLASH_TOKENS = 512
CUDNN_WIDTHS = 8  # channels of a head must be a multiple of it


class SelfAttention(nnx.Module):
    """softmax(q k^T / sqrt(Dh)) v over all tokens, then a projection.

    q, k and v come from one kernel, in this order. Released encoders and decoders that keep three
    matrices are joined at import and split again at export.

    Args:
        width: model width D.
        num_heads: number of heads H; the head width is Dh = D / H.
        qk_norm: None, "rms" or "layer": normalizes each head's q and k before RoPE.
            Not compatible with the released weights.
        key_bias: False keeps the keys' third of the bias out (DINOv3 has none).
        rotate: how rotary angles turn a head: `apply_rope` or `apply_rope_halves`.
        implementation: "auto", "xla", "cudnn" or "splash" (see `dot_product_attention`).
        dtype: compute dtype.
        use_float8: compute both products from 8-bit floats.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        qk_norm: str | None = None,
        key_bias: bool = True,
        rotate: Callable[[Array, Array, Array], Array] | None = None,
        implementation: str,
        dtype: Dtype,
        use_float8: bool = False,
        rngs: nnx.Rngs,
    ):
        def linear(outputs: int, axes: Axes, matrices: int) -> Linear:
            return Linear(
                width,
                outputs,
                axes=axes,
                matrices=matrices,
                dtype=dtype,
                use_float8=use_float8,
                rngs=rngs,
            )

        self.qkv = linear(3 * width, ("embed", "heads"), 3)
        self.proj = linear(width, ("heads", "embed"), 1)
        self.q_norm = make_head_norm(qk_norm, width // num_heads)
        self.k_norm = make_head_norm(qk_norm, width // num_heads)
        self.key_bias = key_bias
        self.rotate = rotate or apply_rope
        self.num_heads = num_heads
        self.implementation = implementation

    def __call__(self, x: Float[Array, "B N D"], rope: Rope | None = None) -> Float[Array, "B N D"]:
        """Mixes the tokens; `rope` is (cos, sin) from `rotary_angles`."""
        batch, tokens, width = x.shape
        heads = (batch, tokens, self.num_heads, width // self.num_heads)
        kernel = resolve(self.implementation, x.dtype, heads)
        if kernel == "cudnn" and tokens % 2 and not self.qkv.use_float8:
            return self.mix_odd(x, rope, implementation="cudnn")
        q, k, v = self.queries_keys_values(x, rope)
        mixed = dot_product_attention(q, k, v, implementation=kernel)
        return self.proj(mixed.reshape(x.shape))

    def mix_odd(
        self,
        x: Float[Array, "B N D"],
        rope: Rope | None,
        *,
        implementation: Literal["xla", "cudnn"],
    ) -> Float[Array, "B N D"]:
        """Mixes an odd number of tokens with a masked one added before the projections.

        There, padding is a part of the norm's pass; padding q, k and v of every block took as long
        as attention itself. q, k and v come from a product each, so that none is cut out either.
        """
        tokens = x.shape[1]
        x = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))
        if rope is not None:
            rope = (jnp.pad(rope[0], ((0, 1), (0, 0))), jnp.pad(rope[1], ((0, 1), (0, 0))))
        q, k, v = self.rotate_heads(*three_products(x, *self.kernel_and_bias(x)), rope)
        mixed = masked_attention(q, k, v, tokens, implementation=implementation)
        return self.proj(mixed.reshape(x.shape))[:, :tokens]

    def queries_keys_values(
        self, x: Float[Array, "B N D"], rope: Rope | None = None
    ) -> tuple[Float[Array, "B N H Dh"], Float[Array, "B N H Dh"], Float[Array, "B N H Dh"]]:
        """Projects to q, k and v; normalizes q and k and applies RoPE where the module does so."""
        batch, tokens, width = x.shape
        qkv = self.project(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        return self.rotate_heads(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], rope)

    def rotate_heads(
        self, q: Array, k: Array, v: Array, rope: Rope | None
    ) -> tuple[Float[Array, "B N H Dh"], Float[Array, "B N H Dh"], Float[Array, "B N H Dh"]]:
        """Cuts q, k and v into heads; normalizes and rotates q and k."""
        heads = (*q.shape[:2], self.num_heads, -1)
        q, k, v = q.reshape(heads), k.reshape(heads), v.reshape(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = self.rotate(q, *rope), self.rotate(k, *rope)
        return q, k, v

    def project(self, x: Float[Array, "B N D"]) -> Float[Array, "B N E"]:
        """Projects to q, k and v, E = 3 D."""
        if self.key_bias:
            return self.qkv(x)
        kernel, bias = self.kernel_and_bias(x)
        return x @ kernel + bias

    def kernel_and_bias(self, x: Array) -> tuple[Float[Array, "D E"], Float[Array, " E"]]:
        """Returns the parameters of q, k and v in the dtype of `x`, zeros where keys have none."""
        kernel, bias = self.qkv.kernel[...].astype(x.dtype), self.qkv.bias[...]
        if not self.key_bias:
            query, _, value = jnp.split(bias, 3)
            bias = jnp.concatenate([query, jnp.zeros_like(query), value])
        return kernel, bias.astype(x.dtype)


def make_head_norm(kind: str | None, head_width: int) -> RMSNorm | LayerNorm | None:
    """Builds the norm of each head's queries and keys: None, "rms" (eps 1e-6) or "layer".

    The LayerNorm has torch's default eps, as the reference gives it none.
    """
    match kind:
        case None:
            return None
        case "rms":
            return RMSNorm(head_width)
        case "layer":
            return LayerNorm(head_width, eps=1e-5)
    raise ValueError(f"qk_norm: got {kind!r}; expected None, 'rms' or 'layer'")


def dot_product_attention(
    q: Float[Array, "B N H Dh"],
    k: Float[Array, "B N H Dh"],
    v: Float[Array, "B N H Dh"],
    *,
    implementation: str,
) -> Float[Array, "B N H Dh"]:
    """Computes attention without a mask; logits and softmax are float32.

    `implementation` is "xla", "cudnn" (GPU, half precision), "splash" (TPU) or "auto", which takes
    the one that `choose_attention` returns.
    """
    kernel = resolve(implementation, q.dtype, q.shape)
    match kernel:
        case "cudnn" if q.shape[1] % 2:
            return odd_length_attention(q, k, v, implementation="cudnn")
        case "xla" | "cudnn":
            return jax.nn.dot_product_attention(q, k, v, implementation=kernel)
        case "splash":
            from rae_dit.kernels.splash import splash_attention  # late: half a second, TPU only

            return splash_attention(q, k, v)
    raise ValueError(
        f"attention: got {implementation!r}; expected 'auto', 'xla', 'cudnn' or 'splash'"
    )


def resolve(implementation: str, dtype: Any, shape: tuple[int, ...]) -> str:
    """Returns `implementation`, or what "auto" means for q of this dtype and [B, N, H, Dh].

    Raises:
        ValueError: cuDNN is asked for and does not take such heads.
    """
    batch, tokens, _, head_width = shape
    if implementation == "cudnn" and head_width % CUDNN_WIDTHS:
        raise ValueError(
            f"attention: got 'cudnn' for heads of {head_width} channels; expected a multiple "
            f"of {CUDNN_WIDTHS}, or 'auto'"
        )
    if implementation != "auto":
        return implementation
    half = dtype in HALF
    return choose_attention(
        *target_devices(), half=half, batch=batch, tokens=tokens, head_width=head_width
    )


def choose_attention(
    platform: str, devices: int | None, *, half: bool, batch: int, tokens: int, head_width: int
) -> Literal["xla", "cudnn", "splash"]:
    """Returns what "auto" means: the platform's fused kernel where it can be used and is faster.

    cuDNN's kernel takes half precision only, and heads of a multiple of 8 channels. Splash
    attention is for TPU, in half precision (XLA follows the precision asked of matrix products, the
    kernel does not), and from 512 tokens on: below, the logits that it avoids are small beside what
    a block keeps anyway. No compiler shards the kernel, so the batch must divide by the devices of
    the current mesh.

    Args:
        platform: "gpu", "tpu" or another.
        devices: that the batch is sharded over; None where that is not known.
        half: whether the compute dtype is bfloat16 or float16.
        batch: examples.
        tokens: per example.
        head_width: channels of a head.
    """
    if platform == "gpu" and half and head_width % CUDNN_WIDTHS == 0:
        return "cudnn"
    split = devices is not None and batch % devices == 0
    if platform == "tpu" and half and tokens >= SPLASH_TOKENS and split:
        return "splash"
    return "xla"
