"""Reference statistics from an ADM-style .npz, to compare generated images with.

ADM's reference batches, such as VIRTUAL_imagenet256_labeled.npz, hold "mu" and "sigma" of pool
features (for FID), "mu_s" and "sigma_s" of spatial ones (for sFID), and 10,000 images in "arr_0"
(for precision and recall). Statistics are taken unchanged; missing ones are computed from the
images. pytorch-fid's files have "mu" and "sigma" alone. "activations", pool features [n, 2048],
serve in place of images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rae_dit.data.files import SourceError
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics import metrics_named
from rae_dit.evaluation.metrics.base import Metric
from rae_dit.evaluation.npz_file import one_line, read_headers
from rae_dit.storage.reading import local_copy

MOMENTS = (("mu", "sigma"), ("mu_s", "sigma_s"))
WIDTH = {"mu": 2048, "mu_s": 2023}
ROWS = "activations"


@dataclass(frozen=True)
class ReferenceFile:
    """An ADM-style .npz.

    Attributes:
        path: of the file.
        shapes: name -> shape of its arrays.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]

    def serves(self, metric: type[Metric]) -> bool:
        """Returns whether the file holds statistics that a metric can be computed from."""
        return any({*names} <= self.shapes.keys() for names in metric.stored_as)

    def missing(self, names: tuple[str, ...]) -> dict[str, str]:
        """Returns metric -> the arrays it needs, for those that the statistics do not serve."""
        found = {}
        for name in names:
            (metric,) = metrics_named([name])
            if metric.compares and not self.serves(metric):
                found[name] = " and ".join(metric.stored_as[0]) if metric.stored_as else ""
        return found

    def fill(self, state: MetricState) -> None:
        """Puts the statistics of the file in place of those in a state.

        Raises:
            SourceError: they are not finite, or not a mean and a covariance.
        """
        with one_line(self.path), np.load(self.path) as arrays:
            for kind in state.metrics:
                if self.serves(kind):
                    state.metrics[kind] = kind.from_reference(arrays)


def open_reference(path: str | Path, metrics: tuple[str, ...]) -> ReferenceFile:
    """Opens a reference file; reads names and shapes of its arrays only.

    Raises:
        SourceError: there is no such file, or metrics need what it lacks; one line.
    """
    path = local_copy(path)
    headers = read_headers(path, "an ADM-style .npz")
    shapes = {name: header.shape for name, header in headers.items()}
    for mean, covariance in MOMENTS:
        if mean in shapes and covariance in shapes:
            width = WIDTH[mean]
            found = [shapes[mean], shapes[covariance]]
            if found != [(width,), (width, width)]:
                raise SourceError(
                    f"got {str(path)!r} with {mean} {found[0]} and {covariance} {found[1]}; "
                    f"expected ({width},) and ({width}, {width}): features of the 2015 Inception"
                )
    if ROWS in shapes and (len(shapes[ROWS]) != 2 or shapes[ROWS][1] != WIDTH["mu"]):
        expected = f"[n, {WIDTH['mu']}]"
        raise SourceError(f"got {str(path)!r} with {ROWS} {shapes[ROWS]}; expected {expected}")
    file = ReferenceFile(path, shapes)
    missing = file.missing(metrics)
    if missing and "arr_0" not in shapes:
        metric, arrays_needed = next(iter(missing.items()))
        expected = f"{arrays_needed} or images in arr_0" if arrays_needed else "images in arr_0"
        raise SourceError(
            f"got {str(path)!r} with {sorted(shapes)}; expected {expected} for {metric!r}"
        )
    return file
