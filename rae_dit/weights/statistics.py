"""Files of latent statistics (mean and variance per element): the official .pt and our .npz."""

import io
import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Float

from rae_dit.architecture import EncoderArchitecture
from rae_dit.storage.files import replacing, write_bytes
from rae_dit.storage.places import place
from rae_dit.storage.reading import local_copy
from rae_dit.weights.errors import WeightsError, reading, refuse_pointer
from rae_dit.weights.npz_file import check_sizes
from rae_dit.weights.torch_file import LazyTensor, read_torch_file, write_torch_file

log = logging.getLogger(__name__)

# What the read-out was before encoders had these fields, and what else tokens depend on.
READ_OUT_BEFORE: dict[str, Any] = {"layers": [], "add_mean": False}
COMPARED = (
    *("family", "input_size", "patch_size", "position_grid", "num_registers"),
    *("hidden_size", "depth", "num_heads", *READ_OUT_BEFORE),
)


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of raw tokens on their grid.

    Attributes:
        mean: float32 [h, w, C].
        variance: float32 [h, w, C], without the 1e-5 that RAE adds.
        count: number of images they were computed over; 0 if the file does not say.
        provenance: what they were computed from; JSON when `modes/stats` wrote it.
    """

    mean: Float[np.ndarray, "h w C"]
    variance: Float[np.ndarray, "h w C"]
    count: int
    provenance: str


def read_statistics(path: str | Path, grid: int, width: int) -> LatentStatistics:
    """Reads official statistics (.pt: mean, var as [C, h, w]) or ours (.npz).

    Args:
        path: the file.
        grid: tokens a side that they must be for, h = w.
        width: channels C that they must be for.

    Raises:
        WeightsError: if there is no file, or it holds neither, or has another shape, or numbers
            that are not finite, or negative variances.
    """
    path = local_copy(path)
    if not path.is_file():
        raise WeightsError(
            f"statistics: got {str(path)!r}, which does not exist; expected a .pt or .npz file"
        )
    statistics = read_npz(path) if path.suffix == ".npz" else read_official(path)
    for name, value in (("mean", statistics.mean), ("variance", statistics.variance)):
        if value.shape != (grid, grid, width):
            raise WeightsError(
                f"{name}: got shape {value.shape}; expected {(grid, grid, width)} (h, w, C), as of "
                f"this encoder and input size, in {path}"
            )
        if not np.isfinite(value).all():
            raise WeightsError(
                f"{name}: got numbers that are not finite; expected finite, in {path}"
            )
    if (statistics.variance < 0).any():
        raise WeightsError(f"variance: got negative numbers; expected 0 or more, in {path}")
    return statistics


def check_encoder(
    statistics: LatentStatistics, encoder: EncoderArchitecture, path: str | Path
) -> None:
    """Refuses statistics that `modes/stats` computed of another encoder, or of other blocks of it.

    Sizes and read-out are compared, and not where the weights lay. Files of others do not say what
    they are of.

    Raises:
        WeightsError: a field differs; names it.
    """
    try:
        theirs = READ_OUT_BEFORE | dict(json.loads(statistics.provenance)["encoder"])
    except (ValueError, TypeError, LookupError):
        log.info("%s: does not say which encoder it is of", path)
        return

    def blocks(layers: Sequence[int]) -> list[int]:
        return list(layers) or [encoder.depth - 1]

    for name in COMPARED:
        expected = getattr(encoder, name)
        got = theirs.get(name, expected)
        if name == "layers":
            got, expected = blocks(got), blocks(expected)
        if got != expected:
            raise WeightsError(
                f"encoder.{name}: got {got!r} in the statistics {path}; expected {expected!r}, as "
                "of this encoder, of which --mode=stats computes others"
            )


def read_npz(path: Path) -> LatentStatistics:
    """Reads what `write_statistics` wrote."""
    with reading(path):
        refuse_pointer(path)
        with zipfile.ZipFile(path) as archive:
            check_sizes(archive, path)
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    names = ["count", "mean", "provenance", "variance"]
    if sorted(arrays) != names:
        raise WeightsError(f"{path}: got {sorted(arrays)}; expected {names}")
    with reading(path):
        return LatentStatistics(
            mean=np.asarray(arrays["mean"], np.float32),
            variance=np.asarray(arrays["variance"], np.float32),
            count=int(arrays["count"]),
            provenance=str(arrays["provenance"]),
        )


def read_official(path: Path) -> LatentStatistics:
    """Reads a `stat.pt`; of mean and var one may be None, which means 0 and 1 there."""
    content = read_torch_file(path)
    if not isinstance(content, dict) or not {"mean", "var"} & content.keys():
        raise WeightsError(f"{path}: got no latent statistics; expected a dict of mean and var")
    unknown = content.keys() - {"mean", "var"}
    if unknown:
        raise WeightsError(f"{path}: got {sorted(map(str, unknown))}; expected mean and var alone")
    given = {name: value for name, value in content.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, LazyTensor):
            raise WeightsError(f"{path}: {name}: got {value!r:.60}; expected a tensor or None")
    with reading(path):
        arrays = {name: np.asarray(value.read(), np.float32) for name, value in given.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if not arrays or len(set(shapes.values())) != 1 or len(shapes[next(iter(shapes))]) != 3:
        raise WeightsError(f"{path}: got {shapes}; expected mean and var of one shape (C, h, w)")
    like = next(iter(arrays.values()))
    mean = arrays["mean"] if "mean" in arrays else np.zeros_like(like)
    variance = arrays["var"] if "var" in arrays else np.ones_like(like)
    return LatentStatistics(
        mean=mean.transpose(1, 2, 0), variance=variance.transpose(1, 2, 0), count=0, provenance=""
    )


def write_statistics(
    path: str | Path,
    *,
    mean: Float[np.ndarray, "h w C"],
    variance: Float[np.ndarray, "h w C"],
    count: int,
    provenance: str,
) -> None:
    """Writes statistics as ours (.npz) or as the reference's (.pt: mean and var alone), atomically.

    Args:
        path: its suffix chooses.
        mean: mean of raw latents.
        variance: their variance, without the 1e-5 that RAE adds.
        count: number of images they were computed over.
        provenance: what they were computed from; usually JSON.

    Raises:
        WeightsError: if the name ends in neither .npz nor .pt.
    """
    mean, variance = np.asarray(mean, np.float32), np.asarray(variance, np.float32)
    match PurePath(path).suffix:
        case ".npz":
            buffer = io.BytesIO()
            np.savez(buffer, mean=mean, variance=variance, count=count, provenance=provenance)
            write_bytes(place(path), buffer.getvalue())
        case ".pt":
            arrays = {"mean": mean.transpose(2, 0, 1), "var": variance.transpose(2, 0, 1)}
            with replacing(place(path)) as temporary:
                write_torch_file(temporary, arrays)
        case suffix:
            raise WeightsError(f"{path}: got {suffix!r}; expected a name in .npz or .pt")
