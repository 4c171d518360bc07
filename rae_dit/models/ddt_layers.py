"""Parts of a DiT^DH around its blocks: patch embeddings, stacks, tokens of conditions, outputs."""

import jax.numpy as jnp
from flax import nnx

from rae_dit.architecture import Compute, DDTArchitecture
from rae_dit.models.ddt_block import DDTBlock, PlainBlock
from rae_dit.models.layers import Dtype, Linear, compute_dtype
from rae_dit.models.rotary import Rope, rotary_angles
from rae_dit.models.stack import Stack


def make_stack(
    architecture: DDTArchitecture, compute: Compute, part: int, depth: int, *, rngs: nnx.Rngs
) -> Stack:
    """Builds `depth` blocks of the backbone (part 0) or of the wide head (part 1)."""
    in_context = architecture.conditioning == "tokens"
    kind = PlainBlock if in_context and part == 0 else DDTBlock

    def make_block(rngs: nnx.Rngs) -> nnx.Module:
        width, heads = architecture.hidden_size[part], architecture.num_heads[part]
        return kind(width, heads, architecture, compute, rngs=rngs)

    return Stack(
        make_block,
        depth,
        scan=compute.scan_layers,
        remat=compute.remat,
        dtype=compute_dtype(compute),
        rngs=rngs,
    )


def rotary_tables(architecture: DDTArchitecture, part: int) -> Rope | tuple[()]:
    """Computes cos and sin of the backbone (part 0) or the head (1); empty without RoPE.

    Tokens of conditions, after the patches, are not rotated.
    """
    if not architecture.use_rope:
        return ()
    grid = architecture.input_size // architecture.patch_size
    head_width = architecture.hidden_size[part] // architecture.num_heads[part]
    cos, sin = rotary_angles(head_width, grid, grid)
    if part == 1 or architecture.conditioning == "adaln":
        return cos, sin
    after = ((0, architecture.time_tokens + architecture.class_tokens), (0, 0))
    return jnp.pad(cos, after, constant_values=1.0), jnp.pad(sin, after)


def make_tokens(count: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    """Draws learned tokens [count, D] from N(0, 1 / D)."""
    tokens = rngs.params.normal((count, width)) / width**0.5
    return nnx.Param(tokens, axes=(None, "embed"), matrices=1)


def make_output(width: int, patch_width: int, dtype: Dtype, rngs: nnx.Rngs) -> Linear:
    """Builds the last linear layer of a head, all zero at initialization."""
    zeros = nnx.initializers.zeros_init()
    return Linear(
        width,
        patch_width,
        axes=("embed", None),
        kernel_init=zeros,
        bias_init=zeros,
        dtype=dtype,
        rngs=rngs,
    )


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
