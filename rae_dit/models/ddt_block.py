"""The transformer block of a DiT^DH: attention and MLP under adaLN-zero."""

from flax import nnx
from jaxtyping import Array, Float

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.attention import SelfAttention
from rae_dit.models.conditioning import Modulation, modulate
from rae_dit.models.layers import MLP, LayerNorm, RMSNorm, SwiGLU, compute_dtype, gelu_tanh


class DDTBlock(nnx.Module):
    """Attention and MLP, each normalized, modulated before and gated after by a condition.

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
        dtype = compute_dtype(compute)
        self.norm1 = make_norm(width, architecture.use_rmsnorm)
        self.norm2 = make_norm(width, architecture.use_rmsnorm)
        head_norm = "rms" if architecture.use_rmsnorm else "layer"
        self.attention = SelfAttention(
            width,
            num_heads,
            qk_norm=head_norm if architecture.use_qknorm else None,
            implementation=compute.attention,
            dtype=dtype,
            rngs=rngs,
        )
        hidden = int(width * architecture.mlp_ratio)
        if architecture.use_swiglu:
            self.mlp: SwiGLU | MLP = SwiGLU(width, int(2 / 3 * hidden), dtype=dtype, rngs=rngs)
        else:
            self.mlp = MLP(width, hidden, activation=gelu_tanh, dtype=dtype, rngs=rngs)
        self.modulation = Modulation(width, width, 6, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], condition: Float[Array, "B M D"], *rope: Array
    ) -> Float[Array, "B N D"]:
        """Transforms tokens; `rope` is (cos, sin), or nothing without rotary positions."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        tables = (rope[0], rope[1]) if rope else None
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), tables)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


def make_norm(width: int, use_rmsnorm: bool) -> RMSNorm | LayerNorm:
    """Builds the norm under an adaLN modulation: RMSNorm with weight, or LayerNorm without."""
    return RMSNorm(width) if use_rmsnorm else LayerNorm(width, eps=1e-6, affine=False)
