"""Config -> reference statistics, with which generated images are compared."""

from collections.abc import Callable
from pathlib import Path

from rae_dit.config import Config
from rae_dit.config.evaluation import METRICS_OF
from rae_dit.evaluation.feature_extractors import FeatureExtractor
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics import metrics_named
from rae_dit.evaluation.metrics.base import Metric
from rae_dit.evaluation.metrics.precision_recall import MAX_REAL
from rae_dit.evaluation.pipeline import (
    accumulate,
    as_config_error,
    cached_reference,
    followed,
    source_batches,
    stored_batches,
)
from rae_dit.evaluation.references import open_reference
from rae_dit.evaluation.stored import open_stored
from rae_dit.provenance import file_hash
from rae_dit.setup import data
from rae_dit.storage.places import place
from rae_dit.workdir import LISTINGS


def make_reference(
    config: Config,
    workdir: Path,
    extractor: FeatureExtractor,
    after_batch: Callable[[], None] = lambda: None,
) -> MetricState | None:
    """Reads or computes what generated images are compared with; None where no metric compares.

    Computed statistics serve every metric of the extractor. They are kept in
    `evaluate.reference_cache` under a hash of the extractor and the images, so they are computed
    once. Only process 0 reads and writes there; on others the sums may be empty. `after_batch` is
    called after each batch of that.

    Raises:
        ConfigError: `evaluate.reference` cannot be used.
    """
    settings = config.evaluate
    compared = comparing(settings.metrics)
    offered = comparing(METRICS_OF[settings.judge])
    if not compared:
        return None
    folder = place(settings.reference_cache) if settings.reference_cache else workdir / "references"
    if not settings.reference:
        source = data.open_source(config, "train", workdir / LISTINGS)
        stride = -(-len(source) // MAX_REAL)
        return cached_reference(
            folder,
            f"{extractor.identity}/{source.fingerprint}/{stride}",
            offered,
            lambda: accumulate(
                MetricState.of(offered, feature_stride=stride),
                extractor,
                followed(
                    source_batches(
                        source, settings.batch_size, num_workers=config.data.num_workers
                    ),
                    after_batch,
                ),
            ),
        )
    with as_config_error("evaluate.reference"):
        file = open_reference(settings.reference, settings.metrics)
        state = MetricState.of(compared)
        if file.missing(settings.metrics):
            images = open_stored(file.path)
            state = cached_reference(
                folder,
                f"{extractor.identity}/{file_hash(file.path)}",
                offered,
                lambda: accumulate(
                    MetricState.of(offered),
                    extractor,
                    followed(
                        stored_batches(images, settings.batch_size, field="evaluate.reference"),
                        after_batch,
                    ),
                ),
            )
        file.fill(state)
    return state


def comparing(names: tuple[str, ...]) -> tuple[type[Metric], ...]:
    """Returns the metrics among `names` that compare with a reference."""
    return tuple(metric for metric in metrics_named(names) if metric.compares)
