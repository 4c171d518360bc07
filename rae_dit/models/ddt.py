r"""DiT^DH: a deep, narrow diffusion transformer whose output conditions a shallow, wide head.

The head is where the model predicts: RAE latents have hundreds of channels, and a transformer
narrower than its tokens cannot denoise them (RAE paper, section 4). The backbone stays cheap.

With t_emb = MLP(fourier(t)) and y_emb = table[y], a forward pass is (SEMANTICS 4.5):

    c = silu(t_emb + y_emb)                                                  (1)
    s = embed_s(x) + position          then  `depth[0]` blocks modulated by c      (2)
    s = project(silu(t_emb + s))             per token; the label is in s already  (3)
    h = embed_x(x)                     then  `depth[1]` blocks modulated by s      (4)
    v = linear(norm(h) (1 + scale) + shift),  (shift, scale) = linear(silu(s))     (5)

Every block silus its condition once more before its adaLN projection, so c is silu'd twice; this
is how the released weights were trained.

Source: bytetriper/RAE `stage2/models/DDT.py`, itself after DDT (arXiv 2504.05741) and LightningDiT.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int

from rae_dit.models.attention import Rotation, rotary_angles
from rae_dit.models.conditioning import Modulation, TimeEmbedding, modulate
from rae_dit.models.ddt_block import DDTBlock, make_norm
from rae_dit.models.layers import (
    Constant,
    Dtype,
    Linear,
    patchify,
    sincos_position_embedding,
    unpatchify,
)
from rae_dit.models.stack import Stack


class DDT(nnx.Module):
    """The velocity field of a flow on RAE latents.

    Pairs are (backbone, head). The released XL is hidden (1152, 2048), depth (28, 2), heads
    (16, 16), 838.7 M parameters.

    Args:
        input_size: side h = w of the latent grid.
        in_channels: channels C of the latent.
        patch_size: latent positions per token side (1 for RAE).
        hidden_size: widths; multiples of 4 each.
        depth: numbers of blocks.
        num_heads: heads; each divides its width, with head widths that are multiples of 4.
        mlp_ratio: MLP hidden width over model width; SwiGLU takes two thirds of it.
        num_classes: K; labels are 0..K-1 and `null_label` = K means "no class".
        use_qknorm, use_swiglu, use_rope, use_rmsnorm, use_pos_embed: switches of the
            architecture; released weights have all but `use_qknorm`.
        attention: implementation (see `attention.dot_product_attention`).
        scan_layers: run the stacks under `lax.scan` instead of unrolled.
        remat: what the backward pass recomputes ("none", "dots", "full").
        dtype: compute dtype; parameters are float32.
        rngs: where initial values come from.
    """

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        patch_size: int = 1,
        hidden_size: tuple[int, int],
        depth: tuple[int, int],
        num_heads: tuple[int, int],
        mlp_ratio: float = 4.0,
        num_classes: int,
        use_qknorm: bool = False,
        use_swiglu: bool = True,
        use_rope: bool = True,
        use_rmsnorm: bool = True,
        use_pos_embed: bool = True,
        attention: str = "auto",
        scan_layers: bool = True,
        remat: str = "none",
        dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        narrow, wide = hidden_size
        self.grid = input_size // patch_size
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.null_label = num_classes
        self.head_widths = (narrow // num_heads[0], wide // num_heads[1])
        self.use_rope = use_rope
        self.dtype = dtype

        patch_width = patch_size**2 * in_channels
        self.embed_s = make_patch_embedding(patch_width, narrow, dtype, rngs)
        self.embed_x = make_patch_embedding(patch_width, wide, dtype, rngs)
        self.time_embedding = TimeEmbedding(narrow, rngs=rngs)
        table = 0.02 * rngs.params.normal((num_classes + 1, narrow))
        self.label_table = nnx.Param(table, axes=(None, "embed"))
        position = jnp.asarray(sincos_position_embedding(narrow, self.grid, self.grid))
        self.position = Constant(position) if use_pos_embed else None
        self.project = (
            Linear(narrow, wide, axes=("embed", None), dtype=dtype, rngs=rngs)
            if narrow != wide
            else None
        )

        def stack(part: int) -> Stack:
            def make_block(rngs: nnx.Rngs) -> DDTBlock:
                return DDTBlock(
                    hidden_size[part],
                    num_heads[part],
                    mlp_ratio=mlp_ratio,
                    use_qknorm=use_qknorm,
                    use_swiglu=use_swiglu,
                    use_rmsnorm=use_rmsnorm,
                    attention=attention,
                    dtype=dtype,
                    rngs=rngs,
                )

            return Stack(
                make_block, depth[part], scan=scan_layers, remat=remat, dtype=dtype, rngs=rngs
            )

        self.backbone = stack(0)
        self.head = stack(1)

        zeros = nnx.initializers.zeros_init()
        self.final_norm = make_norm(wide, use_rmsnorm)
        self.final_modulation = Modulation(wide, wide, 2, dtype=dtype, rngs=rngs)
        self.final_linear = Linear(
            wide,
            patch_width,
            axes=("embed", None),
            kernel_init=zeros,
            bias_init=zeros,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self,
        x: Float[ArrayLike, "B h w C"],
        t: Float[ArrayLike, " B"],
        y: Int[ArrayLike, " B"],
        *,
        run: Callable[..., Array] = Stack.__call__,
    ) -> Float[Array, "B h w C"]:
        """Predicts the velocity at x.

        Args:
            x: noised latent.
            t: time in [0, 1]; 1 is noise, 0 is data.
            y: class labels; `null_label` for none.
            run: (stack, x, *conditions) -> x; observe.py looks into the blocks through it.

        Returns:
            float32 velocity dx/dt.
        """
        t, y = jnp.asarray(t), jnp.asarray(y)
        patches = patchify(jnp.asarray(x, self.dtype), self.patch_size)
        time = self.time_embedding(t)
        condition = jax.nn.silu(time + self.label_table[y])[:, None]  # (1)

        s = self.embed_s(patches)
        if self.position is not None:
            s = s + jax.lax.stop_gradient(self.position[...]).astype(self.dtype)
        s = run(self.backbone, s, condition.astype(self.dtype), *self.rotation(0))  # (2)

        s = jax.nn.silu(time[:, None].astype(self.dtype) + s)  # (3)
        if self.project is not None:
            s = self.project(s)

        h = run(self.head, self.embed_x(patches), s, *self.rotation(1))  # (4)

        shift, scale = self.final_modulation(s)  # (5)
        velocity = self.final_linear(modulate(self.final_norm(h), shift, scale))
        return unpatchify(velocity.astype(jnp.float32), self.patch_size, self.grid, self.grid)

    def rotation(self, part: int) -> Rotation | tuple[()]:
        """The rotary angles of the backbone (0) or the head (1); empty without RoPE."""
        if not self.use_rope:
            return ()
        return rotary_angles(self.head_widths[part], self.grid, self.grid)


def make_patch_embedding(patch_width: int, width: int, dtype: Dtype, rngs: nnx.Rngs) -> Linear:
    """A strided convolution written as a matrix product: xavier-uniform weight, zero bias."""
    return Linear(
        patch_width,
        width,
        axes=(None, "embed"),
        kernel_init=nnx.initializers.xavier_uniform(),
        bias_init=nnx.initializers.zeros_init(),
        dtype=dtype,
        rngs=rngs,
    )
