r"""DiT^DH: a deep, narrow diffusion transformer whose output conditions a shallow, wide head.

The head is where the model predicts: RAE latents have hundreds of channels, and a transformer
narrower than its tokens cannot denoise them (RAE paper, section 4). The backbone stays cheap.

With t_emb = MLP(fourier(t)) and y_emb = table[y], a forward pass is (SEMANTICS 4.5):

    c = silu(t_emb + y_emb)                                                  (1)
    s = embed_s(x) + position          then  `depth[0]` blocks modulated by c      (2)
    s = project(silu(t_emb + s))             per token; the label is in s already  (3)
    h = embed_x(x)                     then  `depth[1]` blocks modulated by s      (4)
    v = linear(norm(h) (1 + scale) + shift),  (shift, scale) = linear(silu(s))     (5)

Every block applies silu to its condition once more before its adaLN projection, so c passes silu
twice; the released weights were trained like this.

Source: bytetriper/RAE `stage2/models/DDT.py`, itself after DDT (arXiv 2504.05741) and LightningDiT.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.attention import Rope, rotary_angles
from rae_dit.models.conditioning import Modulation, TimeEmbedding, check_labels, modulate
from rae_dit.models.ddt_block import DDTBlock, make_norm
from rae_dit.models.layers import (
    Dtype,
    Linear,
    compute_dtype,
    make_constant,
    patchify,
    sincos_position_embedding,
    unpatchify,
    value_of,
)
from rae_dit.models.stack import Stack


class DDT(nnx.Module):
    """The velocity field of a flow on RAE latents.

    The released XL has hidden sizes (1152, 2048), depths (28, 2), heads (16, 16) and 838.7 M
    parameters.

    Args:
        architecture: sizes and switches.
        compute: attention implementation, scan or unrolled, remat, dtype of matrix products.
        train_constants: train the positions and the frequencies of the time embedding too.
        rngs: where initial values come from.

    Attributes:
        architecture: as given.
        patch_size: latent positions per token side.
        grid: tokens per side; N = grid^2.
        in_channels: channels C of the latent.
        null_label: K, the label that means "no class".
        dtype: of matrix products; parameters are float32.
    """

    def __init__(
        self,
        architecture: DDTArchitecture,
        compute: Compute,
        *,
        train_constants: bool = False,
        rngs: nnx.Rngs,
    ):
        self.architecture = architecture
        self.patch_size = architecture.patch_size
        self.grid = architecture.input_size // architecture.patch_size
        self.in_channels = architecture.in_channels
        self.null_label = architecture.num_classes
        self.dtype = dtype = compute_dtype(compute)

        narrow, wide = architecture.hidden_size
        patch_width = self.patch_size**2 * self.in_channels
        self.embed_s = make_patch_embedding(patch_width, narrow, dtype, rngs)
        self.embed_x = make_patch_embedding(patch_width, wide, dtype, rngs)
        self.time_embedding = TimeEmbedding(narrow, train_constants=train_constants, rngs=rngs)
        table = 0.02 * rngs.params.normal((self.null_label + 1, narrow))
        self.label_table = nnx.Param(table, axes=(None, "embed"), matrices=1)
        position = sincos_position_embedding(narrow, self.grid, self.grid)
        self.position = (
            make_constant(position, trained=train_constants) if architecture.use_pos_embed else None
        )
        self.project = (
            Linear(narrow, wide, axes=("embed", None), dtype=dtype, rngs=rngs)
            if narrow != wide
            else None
        )

        def stack(part: int) -> Stack:
            def make_block(rngs: nnx.Rngs) -> DDTBlock:
                width, heads = architecture.hidden_size[part], architecture.num_heads[part]
                return DDTBlock(width, heads, architecture, compute, rngs=rngs)

            return Stack(
                make_block,
                architecture.depth[part],
                scan=compute.scan_layers,
                remat=compute.remat,
                dtype=dtype,
                rngs=rngs,
            )

        self.backbone = stack(0)
        self.head = stack(1)

        zeros = nnx.initializers.zeros_init()
        self.final_norm = make_norm(wide, architecture.use_rmsnorm)
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
        apply_stack: Callable[..., Array] = Stack.__call__,
    ) -> Float[Array, "B h w C"]:
        """Predicts the velocity at x.

        Args:
            x: noised latent.
            t: time in [0, 1]; 1 is noise, 0 is data.
            y: class labels; `null_label` for none.
            apply_stack: (stack, x, *conditions) -> x; `activation_stats` replaces it to see
                inside the stacks.

        Returns:
            float32 velocity dx/dt.

        Raises:
            ValueError: a label is out of range; not under `jax.jit`, where they are not known.
        """
        check_labels(y, self.null_label)
        t, y = jnp.asarray(t), jnp.asarray(y)
        patches = patchify(jnp.asarray(x, self.dtype), self.patch_size)
        time = self.time_embedding(t)
        condition = jax.nn.silu(time + self.label_table[y])[:, None]  # (1)

        s = self.embed_s(patches)
        if self.position is not None:
            s = s + value_of(self.position).astype(self.dtype)
        s = apply_stack(self.backbone, s, condition.astype(self.dtype), *self.rope(0))  # (2)

        s = jax.nn.silu(time[:, None].astype(self.dtype) + s)  # (3)
        if self.project is not None:
            s = self.project(s)

        h = apply_stack(self.head, self.embed_x(patches), s, *self.rope(1))  # (4)

        shift, scale = self.final_modulation(s)  # (5)
        velocity = self.final_linear(modulate(self.final_norm(h), shift, scale))
        return unpatchify(velocity.astype(jnp.float32), self.patch_size, self.grid, self.grid)

    def rope(self, part: int) -> Rope | tuple[()]:
        """Returns cos and sin of the backbone (0) or the head (1); empty without RoPE."""
        if not self.architecture.use_rope:
            return ()
        head_width = self.architecture.hidden_size[part] // self.architecture.num_heads[part]
        return rotary_angles(head_width, self.grid, self.grid)


def make_patch_embedding(patch_width: int, width: int, dtype: Dtype, rngs: nnx.Rngs) -> Linear:
    """Builds a strided convolution as a matrix product: xavier-uniform weight, zero bias."""
    return Linear(
        patch_width,
        width,
        axes=(None, "embed"),
        matrices=0,
        kernel_init=nnx.initializers.xavier_uniform(),
        bias_init=nnx.initializers.zeros_init(),
        dtype=dtype,
        rngs=rngs,
    )
