"""Torch's pickles: which of their names become tensors and containers.

All that torch's pickles name beside these stays a placeholder (`safe_pickle`).
A whole module that was pickled, or TorchScript, becomes the state dict of its parameters.

Source: `torch/_utils.py`, `torch/_tensor.py`, `torch/serialization.py` (torch 2.13).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rae_dit.weights.containers import MAX_DEPTH, check_containers
from rae_dit.weights.errors import WeightsError, parsing
from rae_dit.weights.lazy_tensor import DTYPES, LazyTensor, Storage, unreadable
from rae_dit.weights.safe_pickle import (
    Builder,
    Machine,
    Placeholder,
    Readable,
    plain_key,
)

# Torch's storage classes, by the dtype of their numbers.
STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.storage.UntypedStorage": "uint8",
}
# Kinds of dict: their entries are what matters.
DICTS = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "builtins.dict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "easydict.EasyDict",
    "addict.addict.Dict",
)
MAX_MODULES = 100_000
ReadStorage = Callable[[Storage], np.ndarray]


def load_pickle(
    file: Readable, load_storage: Callable[[Any], Storage], read_storage: ReadStorage
) -> Any:
    """Reads a pickle of torch's, with a `LazyTensor` for every tensor.

    Args:
        file: at the start of the pickle.
        load_storage: makes a storage of a persistent id.
        read_storage: reads its numbers, later.

    Raises:
        WeightsError: the pickle is refused, or a tensor in it is impossible.
    """
    with parsing():
        content = Machine(builders(read_storage), load_storage).run(file)
    check_containers(content)
    if isinstance(content, dict):
        return {key: state_dict_of(value) for key, value in content.items()}
    return state_dict_of(content)


def storage_of(kind: Any, entry: str, length: Any) -> Storage:
    """Makes a storage of what a persistent id says.

    Raises:
        WeightsError: it says something else.
    """
    if type(kind) is not Placeholder or type(length) is not int or length < 0:
        raise WeightsError("It is damaged: its pickle has a record that is no storage.")
    if kind.name not in STORAGES:
        raise WeightsError(
            f"It holds numbers of {kind.name}, which are not read; convert the tensors to float32."
        )
    return Storage(entry, DTYPES[STORAGES[kind.name]], length)


def builders(read_storage: ReadStorage) -> dict[str, Builder]:
    """Returns what a pickle of torch's may call."""

    def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> LazyTensor:
        if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
            raise WeightsError("It is damaged: a tensor is not made of a storage.")
        built = LazyTensor(storage, offset, shape, strides, read_storage)
        built.check()
        return built

    def tensor_of_dtype(
        storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, kind: Any
    ) -> LazyTensor:
        if type(storage) is not Storage or type(kind) is not Placeholder:
            raise WeightsError("It is damaged: a tensor is not made of a storage.")
        dtype = DTYPES.get(kind.name.removeprefix("torch."))
        if dtype is None:
            return unreadable((), f"A tensor is of {kind.name}, which is not read.")
        length = storage.length * storage.dtype.itemsize // dtype.itemsize
        return tensor(replace(storage, dtype=dtype, length=length), offset, shape, strides)

    def of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        if type(function) is not Placeholder or type(arguments) is not tuple:
            raise WeightsError("It is damaged: a tensor is not made by a function.")
        if function.name == "torch._utils._rebuild_wrapper_subclass":
            return local_tensor(state)
        builder = known.get(function.name)
        return builder(*arguments) if builder else Placeholder(function.name, arguments)

    known: dict[str, Builder] = {
        "torch._utils._rebuild_tensor": tensor,  # before torch 0.4
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_of_dtype,
        "torch._utils._rebuild_parameter": first,
        "torch._utils._rebuild_parameter_with_state": first,
        "torch._tensor._rebuild_from_type_v2": of_type,
        "torch.Size": first,
        **dict.fromkeys(DICTS, make_dict),
    }
    return known


def first(value: Any, *_: Any) -> Any:
    """Returns its first argument."""
    return value


def make_dict(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    """Returns a dict, which the pickle fills; Python 2 gave an OrderedDict its pairs at once."""
    made: dict[Any, Any] = {}
    if isinstance(pairs, list):
        for pair in pairs:
            name, value = pair
            made[plain_key(name)] = value
    return made


def local_tensor(state: Any) -> LazyTensor:
    """Returns the tensor of a DTensor, which holds the part of one process: here all, or refused.

    Args:
        state: `_local_tensor`, and `_spec` with the shape of the whole; may be the second of two.
    """
    halves = state if isinstance(state, tuple) else (state,)
    state = next((half for half in halves if isinstance(half, dict)), {})
    local = state.get("_local_tensor")
    spec = state.get("_spec")
    facts = spec.state if type(spec) is Placeholder and isinstance(spec.state, dict) else {}
    meta = facts.get("tensor_meta")
    whole = meta.arguments[0] if type(meta) is Placeholder and meta.arguments else None
    if isinstance(local, LazyTensor) and local.shape == whole:
        return local
    part = local.shape if isinstance(local, LazyTensor) else "a part"
    return unreadable(
        (),
        f"It holds one process's part of a sharded DTensor, {part} of {whole}; save whole tensors: "
        "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
        "options=StateDictOptions(full_state_dict=True, cpu_offload=True)).",
    )


def state_dict_of(value: Any) -> Any:
    """Returns the tensors of a pickled module by their names in it; anything else unchanged.

    Of TorchScript, all attributes; of `torch.save(model, …)`, parameters and buffers.
    """
    if type(value) is not Placeholder or not isinstance(value.state, dict):
        return value
    found: dict[str, LazyTensor] = {}
    todo: list[tuple[str, Any, int]] = [("", value, 0)]
    visited = 0
    while todo:
        prefix, module, depth = todo.pop()
        visited += 1
        if depth > MAX_DEPTH or visited > MAX_MODULES:
            raise WeightsError(f"It holds {visited:,} modules, {depth} deep.")
        inner: list[tuple[str, Any, int]] = []
        for name, member in members(module):
            if isinstance(member, LazyTensor):
                found[f"{prefix}{name}"] = member
            elif type(member) is Placeholder and isinstance(member.state, dict):
                inner.append((f"{prefix}{name}.", member, depth + 1))
        todo += reversed(inner)
    return found or value


def members(module: Placeholder) -> list[tuple[Any, Any]]:
    """Returns named parameters, buffers and submodules of a pickled module."""
    state = module.state
    if module.name.startswith("__torch__."):
        return list(state.items())
    groups = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    return [item for group in groups if isinstance(group, dict) for item in group.items()]
