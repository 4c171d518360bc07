"""Attention on TPU that never writes the logits to memory: JAX's splash kernel, made to fit.

XLA keeps N^2 logits of every head for the backward pass. At 256 tokens that is little; at 1024 it
is the largest thing a block of DiT^DH keeps. The kernel computes them tile by tile, and again in
the backward pass (Dao et al. 2022, arXiv 2205.14135).

What it asks for and gets here: tokens in multiples of 128 (others are filled up, and kept apart by
segment numbers), queries that are scaled already, one example at a time (`vmap`), and, since no
compiler can split a kernel over devices, `shard_map` over the mesh in force.
"""

import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

LANES = 128  # tokens that one row of a TPU's registers holds
BLOCKS = (512, 384, 256, 128)  # tokens of a tile; the largest that divides the sequence is taken


def splash_attention(
    q: Float[Array, "B N H Dh"],
    k: Float[Array, "B N H Dh"],
    v: Float[Array, "B N H Dh"],
    *,
    interpret: bool = False,
) -> Float[Array, "B N H Dh"]:
    """Computes softmax(q k^T / sqrt(Dh)) v without mask; logits and softmax in float32.

    Args:
        q: queries, float32 or bfloat16.
        k: keys.
        v: values.
        interpret: run the kernel as plain JAX, on any device: for tests.

    Raises:
        ValueError: a mesh is in force whose devices do not divide the batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    attend = functools.partial(_attend, interpret=interpret)
    if mesh.empty or mesh.size == 1:
        return attend(q, k, v)
    if q.shape[0] % mesh.size:
        raise ValueError(
            f"splash attention: a batch of {q.shape[0]} does not divide among {mesh.size} devices; "
            "choose another batch size, or compute.attention='xla'."
        )
    split = PartitionSpec(mesh.axis_names)
    return jax.shard_map(attend, in_specs=(split, split, split), out_specs=split, check_vma=False)(
        q, k, v
    )


def _attend(q: Array, k: Array, v: Array, *, interpret: bool) -> Array:
    """Runs the kernel over the examples of one device."""
    tokens, heads, width = q.shape[1:]
    padding = -tokens % LANES
    scaled = (q.astype(jnp.float32) * width**-0.5).astype(q.dtype)
    q, k, v = (
        jnp.pad(jnp.moveaxis(x, 2, 1), ((0, 0), (0, 0), (0, padding), (0, 0)))
        for x in (scaled, k, v)
    )
    kernel = _make_kernel(tokens + padding, heads, interpret)
    number = np.arange(tokens + padding) >= tokens  # 0 for tokens, 1 for what fills up
    segments = splash.SegmentIds(*2 * (jnp.asarray(number, jnp.int32),)) if padding else None
    attend = cast(Callable[..., Array], kernel)  # without residuals, it gives one array
    mixed = jax.vmap(lambda q, k, v: attend(q, k, v, segments))(q, k, v)
    return jnp.moveaxis(mixed[:, :, :tokens], 1, 2)


def _make_kernel(tokens: int, heads: int, interpret: bool) -> splash.SplashAttentionKernel:
    block = next(size for size in BLOCKS if tokens % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )
    return splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((tokens, tokens))] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
