"""Reading of checkpoints: find the step, compare its leaves with the wanted ones, verify checksums.

Items are read by Orbax's handlers, process by process, and not by its CheckpointManager: the
manager's restore has barriers, in which healthy processes would wait for one that met a damaged
file. Here the processes of one replica read, then all agree whether one of them failed.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict
from jax.sharding import SingleDeviceSharding

from rae_dit.checkpoint import integrity
from rae_dit.checkpoint.migration import Structs, stored_leaves, with_added_leaves
from rae_dit.checkpoint.replica import read_by_first_replica
from rae_dit.checkpoint.steps import (
    CheckpointError,
    DamagedCheckpointError,
    chosen_step,
    damage,
    short,
)
from rae_dit.multihost import decide, first_error
from rae_dit.storage.errors import StorageError, storage_failure

Read = TypeVar("Read")


class State(Protocol):
    """A dataclass that is a registered pytree; its field `ema` becomes an item of its own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def ema(self) -> Any:
        """The averaged parameters."""


AnyState = TypeVar("AnyState", bound=State)


def restore_ema(path: str | os.PathLike[str], like_params: dict[str, Any]) -> dict[str, Any]:
    """Restores the averaged parameters without reading the rest of the checkpoint.

    Args:
        path: a workdir, its checkpoints directory (both: newest step), or one step directory.
        like_params: nested dict of jax.ShapeDtypeStruct; a sharding of None is the first device.

    Returns:
        The tree of `like_params` with float32 arrays in its shardings.

    Raises:
        CheckpointError: there is no checkpoint at `path`, it has no EMA, or the tree is another.
        DamagedCheckpointError: the files are damaged; the message lists the other steps.
    """
    trees, _ = _read_step(chosen_step(path), {"ema": like_params})
    return trees["ema"]


def restore_state(path: str | os.PathLike[str], like: AnyState) -> tuple[AnyState, dict[str, Any]]:
    """Restores state and data position of another run, without changing its directory.

    Arguments and errors are those of `restore_ema`, with a state of jax.ShapeDtypeStruct.
    """
    return read_state(chosen_step(path), like)


def items_of(state: State) -> dict[str, Any]:
    """Returns the two array items of a checkpoint: `ema`, and all other fields as `train`."""
    train = {name: value for name, value in vars(state).items() if name != "ema"}
    return {"train": train, "ema": state.ema}


def read_state(directory: Path, like: AnyState) -> tuple[AnyState, dict[str, Any]]:
    """Reads and verifies one step directory; raises like `restore_state`."""
    trees, position = _read_step(directory, items_of(like))
    return dataclasses.replace(like, **trees["train"], ema=trees["ema"]), position


def _read_step(directory: Path, like: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the items named in `like` and the data position."""
    record = _read_record(directory)
    wanted = {item: _placed_leaves(tree) for item, tree in like.items()}
    stored = {
        item: stored_leaves(record.trees.get(item, {}), structs) for item, structs in wanted.items()
    }
    _check_wanted(directory, record, stored)
    position = _read_position(directory, record)
    trees = {}
    for item, structs in stored.items():
        read = functools.partial(_read_item, directory / item)
        hand_out = _together(
            directory, item, functools.partial(read_by_first_replica, structs, read)
        )
        named = hand_out()
        problem = first_error(_disagreement(record.trees[item], named))
        if problem:
            raise DamagedCheckpointError(damage(directory, item, problem))
        leaves = with_added_leaves(named, wanted[item])
        trees[item] = jax.tree.unflatten(jax.tree.structure(like[item]), leaves.values())
    return trees, position


def _placed_leaves(tree: Any) -> Structs:
    """Names the leaves of a tree of shapes; a sharding of None becomes the first device."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here)
        for name, leaf in integrity.named_leaves(tree).items()
    }


def _read_record(directory: Path) -> integrity.Record:
    """Reads the record on process 0, for all: arrays that agree with it agree with each other."""

    def read() -> dict[str, Any]:
        stored: dict[str, Any] = ocp.JsonCheckpointHandler().restore(directory / "integrity")
        integrity.Record.from_json(stored)
        return stored

    return integrity.Record.from_json(_from_first(directory, "integrity record", read))


def _read_position(directory: Path, record: integrity.Record) -> dict[str, Any]:
    """Reads the data position on process 0, for all."""

    def read() -> dict[str, Any]:
        position = dict(ocp.JsonCheckpointHandler().restore(directory / "data"))
        if integrity.json_checksum(position) != record.data:
            raise ValueError("its checksum differs")
        return position

    return _from_first(directory, "data position", read)


def _read_item(directory: Path, structs: Structs) -> dict[str, jax.Array]:
    """Returns the leaves in the order of `structs`."""
    if not structs:
        return {}
    restore_args = ocp.args.StandardRestore(unflatten_dict(dict(structs), sep="/"))
    stored = integrity.named_leaves(
        ocp.StandardCheckpointHandler().restore(directory, args=restore_args)
    )
    return {name: stored[name] for name in structs}


def _disagreement(
    stored: Mapping[str, integrity.LeafRecord], named: Mapping[str, jax.Array]
) -> str:
    """Describes how arrays differ from their record; '' if they do not."""
    sums = integrity.checksums(named)  # by all processes, whatever each of them finds
    # Without the file that says so, Orbax reads a random key as the plain numbers in it.
    lines = integrity.differences(stored, named)
    if lines:
        return integrity.first_few(lines)
    wrong = [name for name, leaf in stored.items() if sums[name] != leaf.checksum]
    return f"checksum of {integrity.first_few(wrong)} differs" if wrong else ""


def _check_wanted(directory: Path, record: integrity.Record, wanted: Mapping[str, Structs]) -> None:
    """Raises CheckpointError if the wanted leaves are not those that are stored."""
    for item, structs in wanted.items():
        if item not in record.trees:
            raise CheckpointError(
                f"{directory} has no '{item}' item, only {sorted(record.trees)}; "
                "give a checkpoint of a training run"
            )
        lines = integrity.differences(record.trees[item], structs)
        if lines:
            raise CheckpointError(
                f"{directory / item} is whole, but it is not the model of this config: "
                f"{integrity.first_few(lines)}. Use the config of that run (its config.json), "
                "or another workdir"
            )
        for name, struct in structs.items():
            try:
                struct.sharding.shard_shape(struct.shape)
            except ValueError as error:
                raise CheckpointError(
                    f"{name} cannot be laid out on these devices: {short(error)}. "
                    "Choose sharding.fsdp so that it divides the dimension"
                ) from error


def _together(directory: Path, what: str, read: Callable[[], Read]) -> Read:
    """Runs `read` on this process; a failure on any process is one on all.

    Raises:
        DamagedCheckpointError: the files are damaged.
        StorageError: they could not be reached, which says nothing about them.
    """
    result, problem, unreachable = None, "", ""
    try:
        result = _or_damage(directory, what, read)
    except DamagedCheckpointError as error:
        problem = str(error)
    except StorageError as error:
        unreachable = str(error)
    unreachable = first_error(unreachable)
    if unreachable:
        raise StorageError(unreachable)
    problem = first_error(problem)
    if problem or result is None:
        raise DamagedCheckpointError(problem)
    return result


def _from_first(directory: Path, what: str, read: Callable[[], Read]) -> Read:
    """Returns on every process the JSON that process 0 reads; raises as `_together`."""

    def attempt() -> dict[str, Any]:
        try:
            return {"read": _or_damage(directory, what, read)}
        except StorageError as error:
            return {"unreachable": str(error)}

    found = decide(attempt, DamagedCheckpointError)
    if "unreachable" in found:
        raise StorageError(found["unreachable"])
    result: Read = found["read"]
    return result


def _or_damage(directory: Path, what: str, read: Callable[[], Read]) -> Read:
    """Runs `read`; a failure is a damaged checkpoint.

    Lack of memory, of permission or of the network says nothing about the files and is re-raised.
    """
    try:
        return read()
    except (MemoryError, PermissionError, StorageError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # for damaged files Orbax raises anything, even plain Exception
        if reason := storage_failure(error):
            raise StorageError(
                f"{directory}: {what} could not be read ({reason}); expected storage that can be "
                "reached; nothing was set aside, and the same command continues"
            ) from error
        raise DamagedCheckpointError(damage(directory, what, short(error))) from error
