"""An account of Muon: its products in a step, and the size of its updates by role."""

import math
from collections import defaultdict

import optax
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from rae_dit.flops import Matmul
from rae_dit.training.muon import COEFFICIENTS


def muon_matmuls(parameters: dict, matrices: dict) -> list[Matmul]:
    """Counts the products of one step: equation (3) of `muon`.

    Args:
        parameters: tree of arrays, or of shapes, [..., in, out].
        matrices: as `muon_and_adamw` takes them.
    """
    groups: dict[tuple[int, int], int] = defaultdict(int)
    counts = flatten_dict(matrices)
    for path, leaf in flatten_dict(parameters).items():
        if count := counts[path]:
            *stacked, width, total = leaf.shape
            rows, columns = sorted((width, total // count))
            groups[rows, columns] += math.prod(stacked) * count
    once = [
        product
        for (rows, columns), times in groups.items()
        for product in (
            Matmul(rows, columns, rows, times),
            Matmul(rows, rows, rows, times),
            Matmul(rows, rows, columns, times),
        )
    ]
    return once * len(COEFFICIENTS)


def update_rms(updates: dict, *, matrices: dict) -> dict[str, Float[Array, ""]]:
    """Measures the root mean square of what is added to Muon's parameters, by their role.

    A role is the name of a layer, such as "attention.qkv", in all blocks of all stacks. Muon adds
    about 0.2 of the learning rate; less where gradients have a lower rank than the matrix.

    Args:
        updates: of all parameters, with rate and decay.
        matrices: as `muon_and_adamw` takes them.

    Returns:
        float32 {"update_rms/ROLE": value}.
    """
    counts = flatten_dict(matrices)
    roles: dict[str, list[Array]] = defaultdict(list)
    for path, leaf in flatten_dict(updates).items():
        if counts[path]:
            inside = path[2:] if "blocks" in path[:2] else path
            roles[".".join(name for name in inside if name != "kernel")].append(leaf)
    return {
        f"update_rms/{role}": (
            optax.tree.norm(leaves) / math.sqrt(sum(leaf.size for leaf in leaves))
        )
        for role, leaves in roles.items()
    }
