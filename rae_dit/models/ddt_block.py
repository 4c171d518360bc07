"""The transformer blocks of a DiT^DH: attention and MLP, under adaLN-zero or plain."""

from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.attention import SelfAttention
from rae_dit.models.conditioning import Modulation, modulate
from rae_dit.models.layers import LayerNorm, RMSNorm, compute_dtype
from rae_dit.models.mlp import MLP, SwiGLU, gelu_tanh

Heads = Float[Array, "B N H Dh"]


class TransformerBlock(nnx.Module):
    """The layers that both kinds of blocks have: attention and MLP, and a norm before each.

    Args:
        width: model width D.
        num_heads: attention heads.
        architecture: switches and the MLP's ratio.
        compute: attention implementation and dtype of matrix products.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        architecture: DDTArchitecture,
        compute: Compute,
        *,
        rngs: nnx.Rngs,
    ):
        self.norm1 = make_norm(width, architecture.use_rmsnorm)
        self.norm2 = make_norm(width, architecture.use_rmsnorm)
        self.attention = make_attention(width, num_heads, architecture, compute, rngs)
        self.mlp = make_mlp(width, architecture, compute, rngs)


class DDTBlock(TransformerBlock):
    """Attention and MLP, each normalized, modulated before and gated after by a condition."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        architecture: DDTArchitecture,
        compute: Compute,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(width, num_heads, architecture, compute, rngs=rngs)
        self.modulation = Modulation(width, width, 6, dtype=compute_dtype(compute), rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], condition: Float[Array, "B M D"], *rope: Array
    ) -> Float[Array, "B N D"]:
        """Transforms tokens; `rope` is (cos, sin), or nothing without rotary positions."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        tables = (rope[0], rope[1]) if rope else None
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), tables)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))

    def queries_keys(
        self, x: Float[Array, "B N D"], condition: Float[Array, "B M D"], *rope: Array
    ) -> tuple[Heads, Heads]:
        """Returns queries and keys of the block's attention, as `__call__` computes them."""
        shift, scale, *_ = self.modulation(condition)
        tables = (rope[0], rope[1]) if rope else None
        return self.attention.queries_keys_values(modulate(self.norm1(x), shift, scale), tables)[:2]


class PlainBlock(TransformerBlock):
    """Attention and MLP, each normalized before: conditions are tokens of the sequence.

    Source: RAEV2.md 3.
    """

    def __call__(self, x: Float[Array, "B N D"], *rope: Array) -> Float[Array, "B N D"]:
        """Transforms tokens; `rope` is (cos, sin), or nothing without rotary positions."""
        x = x + self.attention(self.norm1(x), (rope[0], rope[1]) if rope else None)
        return x + self.mlp(self.norm2(x))

    def queries_keys(self, x: Float[Array, "B N D"], *rope: Array) -> tuple[Heads, Heads]:
        """Returns queries and keys of the block's attention, as `__call__` computes them."""
        tables = (rope[0], rope[1]) if rope else None
        return self.attention.queries_keys_values(self.norm1(x), tables)[:2]


def make_norm(width: int, use_rmsnorm: bool) -> RMSNorm | LayerNorm:
    """Builds the norm before a half of a block: RMSNorm with weight, or LayerNorm without."""
    return RMSNorm(width) if use_rmsnorm else LayerNorm(width, eps=1e-6, affine=False)


def make_attention(
    width: int, num_heads: int, architecture: DDTArchitecture, compute: Compute, rngs: nnx.Rngs
) -> SelfAttention:
    """Builds the attention of a block."""
    head_norm = "rms" if architecture.use_rmsnorm else "layer"
    return SelfAttention(
        width,
        num_heads,
        qk_norm=head_norm if architecture.use_qknorm else None,
        implementation=compute.attention,
        dtype=compute_dtype(compute),
        use_float8=compute.float8,
        rngs=rngs,
    )


def make_mlp(
    width: int, architecture: DDTArchitecture, compute: Compute, rngs: nnx.Rngs
) -> SwiGLU | MLP:
    """Builds the MLP of a block; SwiGLU takes two thirds of the hidden width."""
    dtype, hidden = compute_dtype(compute), int(width * architecture.mlp_ratio)
    if architecture.use_swiglu:
        hidden = int(2 / 3 * hidden)
        return SwiGLU(width, hidden, dtype=dtype, use_float8=compute.float8, rngs=rngs)
    return MLP(
        width, hidden, activation=gelu_tanh, dtype=dtype, use_float8=compute.float8, rngs=rngs
    )
