"""Metrics of sets of images, one file each; a new one also goes into the list below.

Their names are in config/evaluation.py, so that a config is checked before anything is imported.
"""

from collections.abc import Iterable

from rae_dit.evaluation.metrics.base import Metric
from rae_dit.evaluation.metrics.class_accuracy import ClassAccuracy
from rae_dit.evaluation.metrics.fid import FID
from rae_dit.evaluation.metrics.frechet import Frechet
from rae_dit.evaluation.metrics.inception_score import InceptionScore
from rae_dit.evaluation.metrics.precision_recall import PrecisionRecall
from rae_dit.evaluation.metrics.sfid import SFID

METRICS: tuple[type[Metric], ...] = (
    FID,
    SFID,
    InceptionScore,
    PrecisionRecall,
    ClassAccuracy,
    Frechet,
)


def metrics_named(names: Iterable[str]) -> tuple[type[Metric], ...]:
    """Returns the metrics that compute values of these names, each once.

    Raises:
        KeyError: no metric computes one of them.
    """
    by_name = {name: metric for metric in METRICS for name in metric.names}
    return tuple(dict.fromkeys(by_name[name] for name in names))
