"""Parameter path <-> torch tensor name: one mapping for import and export.

A family of weights is a list of `Entry`: which of our parameters holds which torch tensors, and in
which layout. `export_tensors` walks the list forwards, `import_tensors` backwards, so a round trip
is bit-equal by construction and nothing can be written that would not be read again.

Our side is a flat dict from dotted path ("backbone.blocks.mlp.w3.kernel") to array; repeated
blocks are stacked on a leading axis. The torch side is a mapping from torch's names to arrays.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from rae_dit.weights.errors import WeightsError as WeightsError

Tensors = Mapping[str, np.ndarray]
Model = TypeVar("Model", bound=nnx.Module)


@runtime_checkable
class Shaped(Protocol):
    """Protocol of tensors that are read when asked for, and tell their shapes without."""

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor."""
        ...


def tensor_shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    """Returns the shape of a tensor, which is not read where the mapping tells it without."""
    return tensors.shape_of(name) if isinstance(tensors, Shaped) else tensors[name].shape


@dataclass(frozen=True)
class Layout:
    """Converts one tensor to our layout and back; both directions are exact."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
TRANSPOSED = Layout(np.transpose, np.transpose)  # torch keeps Linear kernels as [out, in]
BATCHED = Layout(lambda x: x[0], lambda x: x[None])  # tables saved as [1, N, D]


def convolution(patch: int) -> Layout:
    """Returns the layout [D, C, p, p] <-> [p p C, D] of a patch embedding (`layers.patchify`)."""
    return Layout(
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
        lambda x: x.reshape(patch, patch, -1, x.shape[-1]).transpose(3, 2, 0, 1),
    )


@dataclass(frozen=True)
class Entry:
    """One of our parameters and the torch tensors that it is made of.

    Attributes:
        path: our dotted path.
        keys: torch's names, joined along our last axis in this order; "{}" is the block's number.
        layout: how each tensor is laid out.
        blocks: numbers of the blocks stacked on our leading axis; None when nothing is stacked.
    """

    path: str
    keys: tuple[str, ...]
    layout: Layout = SAME
    blocks: range | None = None

    def parts(self) -> Iterator[tuple[tuple[int, ...], list[str]]]:
        """Yields (index into our leading axis, torch names there); the index is () if unstacked."""
        if self.blocks is None:
            yield (), list(self.keys)
            return
        for row, number in enumerate(self.blocks):
            yield (row,), [key.format(number) for key in self.keys]


def linear(path: str, *keys: str, kernel: Layout = TRANSPOSED) -> list[Entry]:
    """Returns the two entries of a Linear, or of several that we join along their outputs."""
    weights = tuple(f"{key}.weight" for key in keys)
    biases = tuple(f"{key}.bias" for key in keys)
    return [Entry(f"{path}.kernel", weights, kernel), Entry(f"{path}.bias", biases)]


def layer_norm(path: str, key: str) -> list[Entry]:
    """Returns the two entries of an affine LayerNorm."""
    return [Entry(f"{path}.weight", (f"{key}.weight",)), Entry(f"{path}.bias", (f"{key}.bias",))]


def under(path: str, key: str, entries: Iterable[Entry]) -> list[Entry]:
    """Puts entries under a module: `path` on our side, `key` on torch's."""
    return [
        replace(
            entry,
            path=f"{path}.{entry.path}",
            keys=tuple(f"{key}.{name}" for name in entry.keys),
        )
        for entry in entries
    ]


def in_blocks(path: str, key: str, blocks: range, entries: Iterable[Entry]) -> list[Entry]:
    """Puts the entries of one block under `path`, and under `key` ("layers.{}") in torch."""
    return [replace(entry, blocks=blocks) for entry in under(path, key, entries)]


def parameters_of(model: nnx.Module) -> dict[str, Array]:
    """Returns all leaves of a model by dotted path; of an abstract model, shapes and dtypes."""
    flat: dict[str, Array] = flatten_dict(nnx.to_pure_dict(nnx.state(model)), sep=".")
    return flat


def build(abstract: Model, parameters: Mapping[str, Array]) -> Model:
    """Fills a model made by `nnx.eval_shape` with values."""
    graphdef, state = nnx.split(abstract)
    nnx.replace_by_pure_dict(state, unflatten_dict(dict(parameters), sep="."))
    return nnx.merge(graphdef, state)


def export_tensors(
    entries: Iterable[Entry], parameters: Mapping[str, Array | np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts our parameters to torch's names and layouts; arrays are views where possible.

    Raises:
        WeightsError: if a parameter has no name on the other side, or the reverse.
    """
    entries = list(entries)
    unmatched = parameters.keys() ^ {entry.path for entry in entries}
    if unmatched:
        raise WeightsError(
            f"mapping: got other names than the model in {sorted(unmatched)}; expected the same"
        )
    tensors = {}
    for entry in entries:
        value = np.asarray(parameters[entry.path])
        for index, names in entry.parts():
            pieces = np.split(value[index], len(names), axis=-1)
            for name, piece in zip(names, pieces, strict=True):
                tensors[name] = entry.layout.to_torch(piece)
    return tensors


def export_shapes(
    entries: Iterable[Entry], abstract: Mapping[str, Array]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that `export_tensors` would write; uses no memory."""
    zero = np.zeros((), np.float32)
    hollow = {path: np.broadcast_to(zero, leaf.shape) for path, leaf in abstract.items()}
    return {name: tensor.shape for name, tensor in export_tensors(entries, hollow).items()}


def import_tensors(
    entries: Iterable[Entry],
    tensors: Tensors,
    abstract: Mapping[str, Array],
    *,
    what: str,
    fixed: Mapping[str, np.ndarray],
) -> dict[str, Array]:
    """Converts torch's tensors to our float32 parameters; every tensor must be accounted for.

    Tensors are taken one at a time, each once, so a mapping that reads lazily keeps memory low.

    Args:
        entries: the mapping.
        tensors: all tensors of the file.
        abstract: our leaves, for their shapes (`parameters_of` an abstract model).
        what: the name of the file's contents in errors.
        fixed: tensors that we compute: they must be in the file, and equal.

    Raises:
        WeightsError: naming every missing, extra, misshapen, non-finite or unequal tensor.
    """
    entries = list(entries)
    expected = export_shapes(entries, abstract)
    expected |= {name: value.shape for name, value in fixed.items()}
    shapes = {name: tensor_shape(tensors, name) for name in expected if name in tensors}
    wrong = [name for name, shape in shapes.items() if shape != expected[name]]
    problems = describe("missing", [name for name in expected if name not in tensors])
    problems += describe("not known", [name for name in tensors if name not in expected])
    problems += describe("misshapen", wrong, lambda n: f"{n} {shapes[n]}, not {expected[n]}")
    if problems:
        raise WeightsError(f"{what}: got {'; '.join(problems)}; expected the model's tensors")

    changed = [name for name, value in fixed.items() if not is_close(tensors[name], value)]
    broken = []
    parameters = {}
    for entry in entries:
        ours = np.empty(abstract[entry.path].shape, np.float32)
        for index, names in entry.parts():
            pieces = np.split(ours[index], len(names), axis=-1)
            for name, piece in zip(names, pieces, strict=True):
                piece[...] = entry.layout.to_ours(tensors[name])
                if not np.isfinite(piece).all():
                    broken.append(name)
        parameters[entry.path] = jnp.asarray(ours)
    problems = describe("not finite", broken)
    problems += describe("fixed by the architecture, yet different", changed)
    if problems:
        raise WeightsError(
            f"{what}: got {'; '.join(problems)}; expected numbers that the model can use"
        )
    return parameters


def is_close(tensor: np.ndarray, value: np.ndarray) -> bool:
    """Checks whether a stored tensor equals a computed one, up to the rounding of its dtype."""
    tolerance = 1e-5 if tensor.dtype in (np.float32, np.float64) else 1e-2
    if tensor.shape != value.shape:
        return False
    return bool(np.allclose(tensor.astype(np.float32), value, rtol=0, atol=tolerance))


def describe(
    problem: str, names: list[str], show: Callable[[str], str] = lambda name: name
) -> list[str]:
    """Returns one clause of an error: problem, number of tensors, their names (at most 20)."""
    if not names:
        return []
    listed = ", ".join(show(name) for name in names[:20])
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return [f"{len(names)} {problem} ({listed}{more})"]
