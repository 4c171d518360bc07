"""--mode=reconstruct: held-out images through the autoencoder and back."""

import dataclasses
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rae_dit import build, loading, records
from rae_dit.config import Config
from rae_dit.data.pipeline import ordered_batches
from rae_dit.evaluation.pictures import reconstruction_grid
from rae_dit.evaluation.reconstruction import l1, psnr
from rae_dit.files import write_json
from rae_dit.training.sharding import make_mesh, place_batch

log = logging.getLogger(__name__)
SHOWN = 16


def reconstruct(config: Config, workdir: Path) -> None:
    """Writes reconstruction.json and reconstructions.png into the workdir.

    The decoder is that of `decoder.checkpoint`, or of the workdir's own run.
    """
    if not config.decoder.checkpoint and not config.decoder.pretrained:
        own = dataclasses.replace(config.decoder, checkpoint=str(workdir))
        config = dataclasses.replace(config, decoder=own)
    mesh = make_mesh(config.sharding.fsdp)
    source = records.held_out(config)
    originals, results = [], []
    with jax.default_matmul_precision(build.matmul_precision(config)):
        graph, parameters = loading.load_rae(config, mesh, decoder=True)
        for batch in ordered_batches(
            source,
            batch_size=config.data.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            limit=None,
        ):
            real = batch["weight"] > 0
            image = roundtrip(graph, parameters, place_batch(batch, mesh)["image"])
            originals.append(batch["image"][real])
            results.append(np.asarray(image)[real])
    before, after = np.concatenate(originals), np.concatenate(results)
    report = {
        "images": len(before),
        "l1": float(np.mean(l1(before, after))),
        "psnr": float(np.mean(psnr(before, after))),
    }
    write_json(workdir / "reconstruction.json", report)
    reconstruction_grid(workdir / "reconstructions.png", before, after, columns=SHOWN)
    log.info("reconstruction: %s", report)


@jax.jit(static_argnums=0)
def roundtrip(
    graph: nnx.GraphDef, parameters: dict, image: Float[Array, "B H W 3"]
) -> Float[Array, "B H W 3"]:
    """decode(encode(image)), clipped to [0, 1]."""
    rae = nnx.merge(graph, parameters)
    return jnp.clip(rae.decode(rae.encode(image)), 0, 1)
