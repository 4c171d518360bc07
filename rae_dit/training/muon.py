r"""Muon: momentum whose singular values are made one, for the matrices of a network.

For a matrix W of shape [m, n] with gradient G, momentum mu and rate r,

    M <- mu M + G                                                    a sum, zero at the start  (1)
    U  = mu M + G                                                                    Nesterov  (2)
    X  = U / (||U||_F + 1e-7), then five times X <- a X + (b R + c R^2) X with R = X X^T       (3)
    W <- W - r (0.2 sqrt(max(m, n)) X + weight_decay W)                                        (4)

(3) is a polynomial in the singular values s of U that leaves the singular vectors alone: each pass
maps s to a s + b s^3 + c s^5, and its five coefficient triples (Polar Express, arXiv 2505.16932,
each divided by 1.05, 1.05^3 and 1.05^5) bring every s to [0.845, 1.125] if it is above 0.002.
(4) gives each entry a root mean square of about 0.2 r, as AdamW does, so one rate serves both.

Which leaves are matrices is not read off their shapes: a fused q|k|v kernel is three matrices, a
patch embedding is a convolution and none. Layers say so (`models.layers.Linear(matrices=...)`).

Matrices of one shape, from all layers, are one batch of (3). On several devices the batch is split
over all of them, so that no device repeats another's work; the result does not depend on that.

Source: Keller Jordan et al., Muon; RAEv2 (arXiv 2605.18324), which trains with it: RAEV2.md 5.
"""

import itertools
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rae_dit.training.optim import clip

COEFFICIENTS = (
    (7.89258287442441, -20.3830139458796, 13.5553061494069),
    (3.91148486813543, -2.54646359290609, 0.426898831967307),
    (3.76065795569742, -2.51281901821656, 0.432364734907007),
    (3.16039967368629, -2.1496495188985, 0.399636690766439),
    (2.19109717186173, -1.44166201021466, 0.328146487623155),
)
NORM_EPS = 1e-7
ROOT_MEAN_SQUARE = 0.2  # of an update with rate 1, as AdamW's is


class MuonState(NamedTuple):
    """Momentum M of (1): a tree like the parameters, float32."""

    momentum: Any


def muon_and_adamw(
    schedule: optax.Schedule,
    *,
    momentum: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    clip_norm: float | None,
    decay_mask: dict,
    matrices: dict,
    dtype: DTypeLike,
) -> optax.GradientTransformation:
    """Makes Muon for matrices and Adam for all else, with one clip, rate and decay.

    Args:
        schedule: step -> learning rate.
        momentum: mu of (1).
        beta1: decay of Adam's first moment.
        beta2: decay of its second.
        epsilon: added to the root of the second moment.
        weight_decay: decoupled decay.
        clip_norm: largest global norm of a whole gradient; None does not clip.
        decay_mask: parameter tree of bools; False leaves never decay.
        matrices: parameter tree of int: into how many matrices the last axis is cut; 0 for Adam.
        dtype: of the products of (3). bfloat16 changes an update by 3 to 7 % of its length, the
            reference's float16 by 1; singular values stay in their band.
    """
    optimizers = {
        "muon": scale_by_muon(momentum, dtype=dtype, matrices=matrices),
        "adam": optax.scale_by_adam(beta1, beta2, epsilon),
    }
    names = jax.tree.map(lambda count: "muon" if count else "adam", matrices)
    return optax.chain(
        clip(clip_norm),
        optax.partition(optimizers, names),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(schedule),
    )


def scale_by_muon(
    momentum: float, *, dtype: DTypeLike, matrices: dict
) -> optax.GradientTransformation:
    """Turns gradients into 0.2 sqrt(max(m, n)) X: equations (1) to (3)."""

    def init(params: Any) -> MuonState:
        return MuonState(jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        total = jax.tree.map(lambda m, g: momentum * m + g, state.momentum, gradients)
        nesterov = jax.tree.map(lambda m, g: momentum * m + g, total, gradients)
        flat = {path: leaf for path, leaf in flatten_dict(nesterov).items() if is_array(leaf)}
        counts = {path: flatten_dict(matrices)[path] for path in flat}
        updates = flatten_dict(nesterov) | orthogonalize_leaves(flat, counts, dtype)
        return unflatten_dict(updates), MuonState(total)

    return optax.GradientTransformation(init, update)


def is_array(leaf: Any) -> bool:
    """Tells a leaf from the empty node that `optax.partition` puts in place of others' leaves."""
    return not isinstance(leaf, optax.MaskedNode)


Path = tuple[str, ...]


def orthogonalize_leaves(
    leaves: dict[Path, Float[Array, "... m pn"]], counts: dict[Path, int], dtype: DTypeLike
) -> dict[Path, Float[Array, "... m pn"]]:
    """Applies (3) to every matrix and scales it by 0.2 sqrt(max(m, n)).

    Args:
        leaves: stacked or single kernels [..., in, out]; transposing changes nothing in (3).
        counts: into how many matrices each leaf's last axis is cut.
        dtype: of the products.
    """
    groups: dict[tuple[int, ...], dict[Path, Array]] = defaultdict(dict)
    for path, leaf in leaves.items():
        batch = normalize(cut(leaf, counts[path]), dtype)  # where it lies, so that less travels
        groups[batch.shape[1:]][path] = batch
    result = {}
    for (_, columns), members in groups.items():
        scale = ROOT_MEAN_SQUARE * columns**0.5
        whole = orthogonalize(jnp.concatenate(list(members.values())))
        ends = list(itertools.accumulate(len(batch) for batch in members.values()))
        for path, batch in zip(members, jnp.split(whole, ends[:-1]), strict=True):
            joined = join(batch, counts[path], leaves[path].shape)
            result[path] = scale * joined.astype(jnp.float32)
    return result


def cut(leaf: Float[Array, "... m pn"], count: int) -> Float[Array, "k rows columns"]:
    """Cuts a leaf into its matrices, each turned so that it has no more rows than columns."""
    width, total = leaf.shape[-2:]
    parts = leaf.reshape(-1, width, count, total // count).swapaxes(1, 2)
    batch = parts.reshape(-1, width, total // count)
    return batch.swapaxes(1, 2) if width > total // count else batch


def join(
    batch: Float[Array, "k rows columns"], count: int, shape: tuple[int, ...]
) -> Float[Array, "... m pn"]:
    """Inverts `cut`."""
    width, part = shape[-2], shape[-1] // count
    if width > part:
        batch = batch.swapaxes(1, 2)
    return batch.reshape(-1, count, width, part).swapaxes(1, 2).reshape(shape)


def normalize(
    u: Float[Array, "k rows columns"], dtype: DTypeLike
) -> Float[Array, "k rows columns"]:
    """Divides float32 matrices by their norms, the start of equation (3); a zero stays zero."""
    norm = jnp.sqrt(jnp.sum(jnp.square(u), axis=(1, 2), keepdims=True))
    return (u / (norm + NORM_EPS)).astype(dtype)


def orthogonalize(x: Float[Array, "k rows columns"]) -> Float[Array, "k rows columns"]:
    """Brings the singular values of normalized matrices close to one: equation (3).

    Args:
        x: matrices of norm 1, or zero ones, which stay zero; rows <= columns. Products are in their
            dtype.
    """
    count = len(x)
    x = split_over_devices(x)
    for a, b, c in COEFFICIENTS:
        gram = jnp.einsum("kij,klj->kil", x, x)
        polynomial = b * gram + c * jnp.einsum("kij,kjl->kil", gram, gram)
        x = a * x + jnp.einsum("kij,kjl->kil", polynomial, x)
    return x[:count]


def split_over_devices(u: Float[Array, "k rows columns"]) -> Float[Array, "q rows columns"]:
    """Pads a batch with zeros to a multiple of the current mesh's devices and splits it there.

    Fewer matrices than devices are padded, too: each device then makes one product, not all.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(u) == 1:
        return u
    padded = jnp.pad(u, ((0, -len(u) % mesh.size), (0, 0), (0, 0)))
    return jax.lax.with_sharding_constraint(padded, PartitionSpec(mesh.axis_names))
