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

RAEv2 differs in three ways, each a switch of the architecture (RAEV2.md 3):

    s = [embed_s(x) | T_t + t_emb | T_c + y_emb]  then  plain blocks               (2')
    b = silu(t_emb + s_l) after block l;  a second head: (5) with h = s = b        (6)
    the outputs are the data x, of which v is computed (diffusion/prediction)      (7)

where T_t and T_c are learned tokens, which the head does not see. The second head trains the
backbone early on, and is the weak prediction of internal guidance.

A network with two times predicts the average velocity between r and t, which is the velocity where
r = t (`diffusion/mean_flow`). A second embedding, zero at initialization, is added to t_emb:

    t_emb = MLP(fourier(t)) + MLP'(fourier'(t - r))                                (8)

Source: bytetriper/RAE `stage2/models/DDT.py`, itself after DDT (arXiv 2504.05741) and LightningDiT;
RAEv2 (arXiv 2605.18324); MF-RAE (arXiv 2511.13019).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.diffusion.prediction import velocity_of
from rae_dit.models.conditioning import (
    Modulation,
    TimeEmbedding,
    check_labels,
    embed_times,
    modulate,
)
from rae_dit.models.ddt_block import make_norm
from rae_dit.models.ddt_layers import (
    make_output,
    make_patch_embedding,
    make_stack,
    make_tokens,
    rotary_tables,
)
from rae_dit.models.layers import (
    Linear,
    compute_dtype,
    make_constant,
    patchify,
    sincos_position_embedding,
    unpatchify,
    value_of,
)
from rae_dit.models.rotary import Rope
from rae_dit.models.stack import Stack

ApplyStack = Callable[..., Array]


class DDT(nnx.Module):
    """The velocity field of a flow on RAE latents.

    The released XL of RAE has hidden sizes (1152, 2048), depths (28, 2), heads (16, 16) and 838.7 M
    parameters; that of RAEv2 (1440, 2048), (28, 2), (20, 16) and 875.2 M.

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
        float8: whether those of the blocks are computed from 8-bit floats.
        backbone: blocks before the second head, or all of the backbone.
        upper: its other blocks; None without a second head.
        head: blocks of the wide head.
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
        self.float8 = compute.float8

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
        in_context = architecture.conditioning == "tokens"
        self.time_tokens = (
            make_tokens(architecture.time_tokens, narrow, rngs) if in_context else None
        )
        self.class_tokens = (
            make_tokens(architecture.class_tokens, narrow, rngs) if in_context else None
        )
        self.project = (
            Linear(narrow, wide, axes=("embed", None), dtype=dtype, rngs=rngs)
            if narrow != wide
            else None
        )

        depth, head_depth = architecture.depth
        lower = architecture.base_depth or depth
        stack = functools.partial(make_stack, architecture, compute, rngs=rngs)
        self.backbone = stack(0, lower)
        self.upper = stack(0, depth - lower) if lower < depth else None
        self.head = stack(1, head_depth)

        self.final_norm = make_norm(wide, architecture.use_rmsnorm)
        self.final_modulation = Modulation(wide, wide, 2, dtype=dtype, rngs=rngs)
        self.final_linear = make_output(wide, patch_width, dtype, rngs)
        if architecture.base_depth:
            self.base_norm = make_norm(narrow, architecture.use_rmsnorm)
            self.base_modulation = Modulation(narrow, narrow, 2, dtype=dtype, rngs=rngs)
            self.base_linear = make_output(narrow, patch_width, dtype, rngs)
        self.interval_embedding = (  # last: all else is initialized as without it
            TimeEmbedding(narrow, train_constants=train_constants, starts_at_zero=True, rngs=rngs)
            if architecture.interval_embedding
            else None
        )

    def __call__(
        self,
        x: Float[ArrayLike, "B h w C"],
        t: Float[ArrayLike, " B"],
        y: Int[ArrayLike, " B"],
        r: Float[ArrayLike, " B"] | None = None,
        *,
        apply_stack: ApplyStack = Stack.__call__,
    ) -> Float[Array, "B h w C"]:
        """Predicts the velocity at x, or the average velocity from r to t.

        Args:
            x: noised latent.
            t: time in [0, 1]; 1 is noise, 0 is data.
            y: class labels; `null_label` for none.
            r: earlier time in [0, t], of a network with two times; None for one with one.
            apply_stack: (stack, x, *conditions) -> x; `activation_stats` replaces it to see
                inside the stacks.

        Returns:
            float32 velocity dx/dt.

        Raises:
            ValueError: r is missing, or the network has one time; or a label is out of range, which
                is not known under `jax.jit`.
        """
        velocity, _ = self.evaluate(x, t, y, r, apply_stack)
        return velocity

    def velocity(
        self, x: Float[ArrayLike, "B h w C"], t: Float[ArrayLike, " B"], y: Int[ArrayLike, " B"]
    ) -> Float[Array, "B h w C"]:
        """Predicts the velocity at x whether the network has one time or two (r = t)."""
        return self(x, t, y, None if self.interval_embedding is None else t)

    def heads(
        self, x: Float[ArrayLike, "B h w C"], t: Float[ArrayLike, " B"], y: Int[ArrayLike, " B"]
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
        """Predicts the velocity at x by both heads; arguments are those of `__call__`.

        Returns:
            float32 velocities of the whole network and of the second head.

        Raises:
            ValueError: the network has one head, or a label is out of range.
        """
        velocity, base = self.evaluate(x, t, y, None, Stack.__call__)
        if base is None:
            raise ValueError("base_depth: got 0; expected a network with a second head")
        return velocity, base

    def evaluate(
        self,
        x: Float[ArrayLike, "B h w C"],
        t: Float[ArrayLike, " B"],
        y: Int[ArrayLike, " B"],
        r: Float[ArrayLike, " B"] | None,
        apply_stack: ApplyStack,
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"] | None]:
        """Returns the velocity of the network and that of its second head, if it has one."""
        check_labels(y, self.null_label)
        x, t, y = jnp.asarray(x, jnp.float32), jnp.asarray(t), jnp.asarray(y)
        patches = patchify(x.astype(self.dtype), self.patch_size)
        time = embed_times(t, r, self.time_embedding, self.interval_embedding)

        s, conditions = self.backbone_inputs(patches, time, self.label_table[y])
        s = apply_stack(self.backbone, s, *conditions)  # (2)
        base = s[:, : patches.shape[1]]
        if self.upper is not None:
            s = apply_stack(self.upper, s, *conditions)
        s = s[:, : patches.shape[1]]

        s = jax.nn.silu(time[:, None].astype(self.dtype) + s)  # (3)
        if self.project is not None:
            s = self.project(s)
        h = apply_stack(self.head, self.embed_x(patches), s, *self.rope(1))  # (4)
        shift, scale = self.final_modulation(s)  # (5)
        output = self.final_linear(modulate(self.final_norm(h), shift, scale))
        velocity = self.to_velocity(output, x, t)
        if not self.architecture.base_depth:
            return velocity, None

        base = jax.nn.silu(time[:, None].astype(self.dtype) + base)  # (6)
        shift, scale = self.base_modulation(base)
        output = self.base_linear(modulate(self.base_norm(base), shift, scale))
        return velocity, self.to_velocity(output, x, t)

    def backbone_inputs(
        self,
        patches: Float[Array, "B N P"],
        time: Float[Array, "B D"],
        label: Float[Array, "B D"],
    ) -> tuple[Float[Array, "B M D"], tuple[Array, ...]]:
        """Returns the backbone's tokens and the conditions of its blocks: (1), (2) or (2')."""
        s = self.embed_s(patches)
        if self.position is not None:
            s = s + value_of(self.position).astype(self.dtype)
        if self.time_tokens is None or self.class_tokens is None:
            condition = jax.nn.silu(time + label)[:, None]  # (1)
            return s, (condition.astype(self.dtype), *self.rope(0))
        tokens = [self.time_tokens[...] + time[:, None], self.class_tokens[...] + label[:, None]]
        s = jnp.concatenate([s, *(x.astype(self.dtype) for x in tokens)], axis=1)
        return s, self.rope(0)

    def to_velocity(
        self, output: Float[Array, "B N P"], x: Float[Array, "B h w C"], t: Float[Array, " B"]
    ) -> Float[Array, "B h w C"]:
        """Joins patches; returns the float32 velocity that they are, or lead to: (7)."""
        latent = unpatchify(output.astype(jnp.float32), self.patch_size, self.grid, self.grid)
        return latent if self.architecture.prediction == "v" else velocity_of(latent, x, t)

    def stacks(self) -> dict[str, Stack]:
        """Returns the stacks of blocks by name, in the order in which they run."""
        upper = {} if self.upper is None else {"upper": self.upper}
        return {"backbone": self.backbone, **upper, "head": self.head}

    def rope(self, part: int) -> Rope | tuple[()]:
        """Returns cos and sin of the backbone (0) or the head (1); empty without RoPE."""
        return rotary_tables(self.architecture, part)
