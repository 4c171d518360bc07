"""--mode=stats: mean and variance of the encoder's tokens over the training images."""

import dataclasses
import functools
import json
import logging
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from tqdm import tqdm

from rae_dit import build, loading, records
from rae_dit.autoencoder.statistics import Statistics, merge
from rae_dit.config import Config
from rae_dit.data.pipeline import ordered_batches
from rae_dit.training.sharding import make_mesh, place_batch
from rae_dit.weights.statistics import write_statistics

log = logging.getLogger(__name__)


def stats(config: Config, workdir: Path) -> None:
    """Writes statistics.npz into the workdir; `encoder.statistics` takes it."""
    bare = dataclasses.replace(config.encoder, statistics="")
    config = dataclasses.replace(config, encoder=bare)
    mesh = make_mesh(config.sharding.fsdp)
    source = records.open_source(config, "train")
    batches = ordered_batches(
        source,
        batch_size=config.data.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        limit=None,
    )
    parts = []
    with jax.default_matmul_precision(build.matmul_precision(config)):
        graph, parameters = loading.load_rae(config, mesh, decoder=False)
        total = -(-len(source) // config.data.batch_size)
        for batch in tqdm(batches, desc="latent statistics", unit="batch", total=total):
            latents = np.asarray(encode(graph, parameters, place_batch(batch, mesh)["image"]))
            parts.append(Statistics.of(latents[batch["weight"] > 0]))
    found = functools.reduce(merge, parts)
    provenance = {
        "source": config.data.source,
        "fingerprint": source.fingerprint,
        "encoder": dataclasses.asdict(config.encoder),
        "image_size": config.data.image_size,
    }
    path = workdir / "statistics.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_statistics(
        path,
        mean=found.mean,
        variance=found.variance,
        count=found.count,
        provenance=json.dumps(provenance),
    )
    log.info("statistics of %d latents in %s", found.count, path)


@jax.jit(static_argnums=0)
def encode(
    graph: nnx.GraphDef, parameters: dict, image: Float[Array, "B H W 3"]
) -> Float[Array, "B h w D"]:
    """Images -> latents."""
    return nnx.merge(graph, parameters).encode(image)
