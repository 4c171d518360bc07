"""The block that both stacks of a DiT^DH repeat."""

from flax import nnx
from jaxtyping import Array, Float

from rae_dit.models.attention import SelfAttention
from rae_dit.models.conditioning import Modulation, modulate
from rae_dit.models.layers import MLP, Dtype, LayerNorm, RMSNorm, SwiGLU, gelu_tanh


class DDTBlock(nnx.Module):
    """Attention and MLP, each normalised, modulated before and gated after by a condition."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        use_qknorm: bool,
        use_swiglu: bool,
        use_rmsnorm: bool,
        attention: str,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.norm1 = make_norm(width, use_rmsnorm)
        self.norm2 = make_norm(width, use_rmsnorm)
        head_norm = "rms" if use_rmsnorm else "layer"
        self.attention = SelfAttention(
            width,
            num_heads,
            qk_norm=head_norm if use_qknorm else None,
            implementation=attention,
            dtype=dtype,
            rngs=rngs,
        )
        hidden = int(width * mlp_ratio)
        if use_swiglu:
            self.mlp: SwiGLU | MLP = SwiGLU(width, int(2 / 3 * hidden), dtype=dtype, rngs=rngs)
        else:
            self.mlp = MLP(width, hidden, activation=gelu_tanh, dtype=dtype, rngs=rngs)
        self.modulation = Modulation(width, width, 6, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], condition: Float[Array, "B M D"], *rotation: Array
    ) -> Float[Array, "B N D"]:
        """Runs the block; `rotation` is (cos, sin), or nothing without RoPE."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        turn = (rotation[0], rotation[1]) if rotation else None
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), turn)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


def make_norm(width: int, use_rmsnorm: bool) -> RMSNorm | LayerNorm:
    """The norm under an adaLN modulation: RMSNorm with weight, or LayerNorm without."""
    return RMSNorm(width) if use_rmsnorm else LayerNorm(width, eps=1e-6, affine=False)
