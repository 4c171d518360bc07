"""What generated images are compared with: statistics in an .npz of ADM's kind.

ADM's reference batches, such as VIRTUAL_imagenet256_labeled.npz, hold "mu" and "sigma" of pool
features (for FID), "mu_s" and "sigma_s" of spatial ones (sFID), and 10,000 images in "arr_0" (for
precision and recall). Statistics are taken as they stand; what is not there is computed from the
images. pytorch-fid's files have "mu" and "sigma" alone. "activations", pool features [n, 2048],
serve in place of images.
"""

import functools
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rae_dit.data.files import SourceError
from rae_dit.evaluation.metric_state import Tally
from rae_dit.evaluation.metrics.frechet_distance import Moments

POOL, SPATIAL = ("mu", "sigma"), ("mu_s", "sigma_s")
WIDTH = {"mu": 2048, "mu_s": 2023}
ROWS = "activations"
UNKNOWN = 2  # count of moments whose file does not tell: enough for a distance, never merged


@dataclass(frozen=True)
class ReferenceFile:
    """An .npz of ADM's kind.

    Attributes:
        path: of the file.
        shapes: name -> shape of its arrays.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]

    def lacks(self, metrics: tuple[str, ...]) -> dict[str, str]:
        """Metric -> the arrays it needs, for those that the file's statistics do not serve."""
        has_pool = {*POOL} <= self.shapes.keys() or ROWS in self.shapes
        lacking = {}
        if "fid" in metrics and not has_pool:
            lacking["fid"] = f"{POOL[0]} and {POOL[1]}"
        if "sfid" in metrics and not {*SPATIAL} <= self.shapes.keys():
            lacking["sfid"] = f"{SPATIAL[0]} and {SPATIAL[1]}"
        for metric in ("precision", "recall"):
            if metric in metrics and ROWS not in self.shapes:
                lacking[metric] = ROWS
        return lacking

    def fill(self, tally: Tally) -> None:
        """Puts the statistics of the file in place of those a tally may have.

        Raises:
            SourceError: they are not finite, or not a mean and a covariance.
        """
        try:
            with np.load(self.path) as arrays:
                if ROWS in self.shapes:
                    tally.rows = [arrays[ROWS].astype(np.float32)]
                    tally.pool.merged = Moments.of(arrays[ROWS])
                for stream, names in ((tally.pool, POOL), (tally.spatial, SPATIAL)):
                    if {*names} <= self.shapes.keys():
                        stream.waiting = []
                        mean, covariance = (arrays[name] for name in names)
                        stream.merged = Moments(mean, covariance, UNKNOWN)
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise SourceError(f"{self.path} cannot be used: {error}") from error


def open_reference(path: str | Path, metrics: tuple[str, ...]) -> ReferenceFile:
    """Looks into a reference file; reads no more than names and shapes.

    Raises:
        SourceError: there is none, or it cannot serve the metrics; one line.
    """
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        kind = "is no .npz" if path.is_file() else "does not exist"
        raise SourceError(f"got {str(path)!r}, which {kind}; expected an .npz of ADM's kind")
    with np.load(path) as arrays:
        shapes = {name: _shape(path, name) for name in arrays.files}
    for mean, covariance in (POOL, SPATIAL):
        if mean in shapes and covariance in shapes:
            width = WIDTH[mean]
            found = [shapes[mean], shapes[covariance]]
            if found != [(width,), (width, width)]:
                raise SourceError(
                    f"got {str(path)!r} with {mean} {found[0]} and {covariance} {found[1]}, "
                    f"expected ({width},) and ({width}, {width}): features of the 2015 Inception"
                )
    if ROWS in shapes and (len(shapes[ROWS]) != 2 or shapes[ROWS][1] != WIDTH["mu"]):
        expected = f"[n, {WIDTH['mu']}]"
        raise SourceError(f"got {str(path)!r} with {ROWS} {shapes[ROWS]}, expected {expected}")
    file = ReferenceFile(path, shapes)
    lacking = file.lacks(metrics)
    if lacking and "arr_0" not in shapes:
        metric, arrays_needed = next(iter(lacking.items()))
        raise SourceError(
            f"got {str(path)!r} with {sorted(shapes)}, expected {arrays_needed} or images in arr_0 "
            f"for {metric!r}"
        )
    return file


def hash_of(path: Path) -> str:
    """SHA-256 of a file; computed again only when size or time of the file change."""
    status = path.stat()
    return _hash_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _hash_of(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shape(path: Path, name: str) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(file)[0]
        return shape
