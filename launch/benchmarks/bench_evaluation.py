r"""Images per second of the evaluation during training: sampling, decoding, features, FID.

    python launch/benchmarks/bench_evaluation.py --config=configs/dit_dino.py \
        --config.precision=bf16 --config.evaluate.num_samples=1024

All devices make and judge their share of the images; the features' sums are merged and process 0
computes the distance. All weights are random, the judge's too. Prints one JSON line.
"""

import dataclasses
import json
import time
from typing import Any

import jax
import numpy as np
from absl import app
from bench import CONFIG, facts
from flax import nnx

from rae_dit.config import Config, from_config_dict
from rae_dit.evaluation.feature_extractors import FeatureExtractor, InceptionExtractor
from rae_dit.evaluation.metric_state import MetricState
from rae_dit.evaluation.metrics.base import Metric
from rae_dit.evaluation.metrics.fid import FID
from rae_dit.evaluation.metrics.frechet import Frechet
from rae_dit.evaluation.pipeline import Batch, accumulate, evaluate_batches
from rae_dit.models.inception import InceptionV3
from rae_dit.planning.compiled import without_files
from rae_dit.sampling.generate import Generator
from rae_dit.setup import models, weights
from rae_dit.setup.evaluation import (
    during_training,
    generated_batches,
    make_feature_extractor,
)
from rae_dit.training.sharding import make_mesh


def main(_: list[str]) -> None:
    """Prints the line."""
    config = without_files(from_config_dict(CONFIG.value))
    metrics = dataclasses.replace(
        config.metrics, evaluate_samples=config.evaluate.num_samples, evaluate_every=1
    )
    config = during_training(dataclasses.replace(config, metrics=metrics))
    print(json.dumps({"part": "evaluate"} | measure(config) | facts(config)), flush=True)


def measure(config: Config) -> dict[str, Any]:
    """Evaluates twice, timing the second: the first compiles."""
    mesh = make_mesh(config.sharding.fsdp)
    with jax.default_matmul_precision(models.matmul_precision(config)):
        generator = Generator(
            nnx.merge(*weights.initialize(models.make_ddt, config, mesh)),
            nnx.merge(*weights.place_rae(config, mesh, decoder=True)),
            mesh,
        )
        extractor, metric = judge(config)
        size, count = config.data.image_size, 2 * config.evaluate.batch_size
        noise = np.random.default_rng(0).random((count, size, size, 3), np.float32)
        reference = accumulate(
            MetricState.of([metric]), extractor, [Batch(np.arange(count), noise)]
        )
        seconds, distances = [], []
        for _ in range(2):
            begun = time.perf_counter()
            batches = generated_batches(generator, config, config.sample.cfg_scale)
            found = evaluate_batches(metric.names, extractor, reference, batches)
            distances.append(found[metric.names[0]])
            seconds.append(time.perf_counter() - begun)
    images = config.evaluate.num_samples
    return {
        "batch": config.sample.batch_size,
        "images": images,
        metric.names[0]: [round(distance, 6) for distance in distances],
        "seconds": round(seconds[1], 2),
        "images_per_second": round(images / seconds[1], 2),
        "first_call_seconds": round(seconds[0], 1),
    }


def judge(config: Config) -> tuple[FeatureExtractor, type[Metric]]:
    """Returns the config's judge and the distance that it measures; the Inception is random."""
    if config.evaluate.judge == "digits":  # of a dry run: seconds in place of minutes
        return make_feature_extractor(config), Frechet
    size = config.evaluate.batch_size
    return InceptionExtractor.of(random_inception(), batch_size=size, identity=""), FID


def random_inception() -> InceptionV3:
    """Makes the 2015 Inception with random kernels."""
    network = InceptionV3()
    generator = np.random.default_rng(0)

    def filled(leaf: Any) -> Any:
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return generator.normal(0, spread, leaf.shape).astype("f4") if leaf.ndim == 4 else leaf

    nnx.update(network, jax.tree.map(filled, nnx.state(network)))
    return network


if __name__ == "__main__":
    app.run(main)
