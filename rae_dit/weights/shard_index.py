"""Reader of weights in several files: the `*.index.json` of transformers and diffusers."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from rae_dit.weights.config_file import read_json
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.lazy_tensor import LazyTensor


def read_index(
    path: Path, read_shard: Callable[[Path], Mapping[str, LazyTensor]]
) -> dict[str, LazyTensor]:
    """Reads the tensors of all shards.

    Args:
        path: the index.
        read_shard: reads the tensors of one file.

    Raises:
        FileNotFoundError: there is no such index.
        WeightsError: it is damaged, or a shard is missing, or lacks a tensor that it should hold.
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path}: weight_map: got {weight_map!r:.60}; expected names and files")
    shards: dict[str, Mapping[str, LazyTensor]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard:
            raise WeightsError(f"{path}: {name}: got {shard!r:.60}; expected a file beside it")
        if shard not in shards:
            try:
                shards[shard] = read_shard(path.parent / shard)
            except FileNotFoundError as error:
                raise WeightsError(
                    f"{path}: {shard} is missing; fetch all files of the index"
                ) from error
        if name not in shards[shard]:
            raise WeightsError(f"{path}: {shard} does not hold {name!r}, as the index says")
    every = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    return every | {name: shards[shard][name] for name, shard in weight_map.items()}
