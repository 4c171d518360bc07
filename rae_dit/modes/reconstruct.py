"""--mode=reconstruct: reconstructions by the autoencoder and their errors.

Images are processed in batches, a share by each process; only sums and the pairs that are shown
are kept in memory.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float
from PIL import Image

from rae_dit.config import Config, ConfigError
from rae_dit.data.files import Images, SourceError
from rae_dit.data.flat_folder import open_pictures
from rae_dit.data.pipeline import ordered_batches
from rae_dit.data.sources import Source
from rae_dit.data.transforms import to_float, to_uint8
from rae_dit.evaluation.feature_extractors import FeatureExtractor
from rae_dit.evaluation.figures import reconstruction_grid
from rae_dit.evaluation.metric_state import MetricState, merge_processes
from rae_dit.evaluation.metrics.fid import FID
from rae_dit.evaluation.pipeline import as_config_error, progress
from rae_dit.evaluation.reconstruction import errors, means
from rae_dit.models.lpips import MINIMUM_SIZE as LPIPS_MINIMUM
from rae_dit.models.pixels import to_unit
from rae_dit.multihost import allgather_bytes, on_first_process, place, require_same, share
from rae_dit.objectives.base import Tree
from rae_dit.provenance import file_record, software
from rae_dit.sampling import codec
from rae_dit.setup import data, models, weights
from rae_dit.setup.evaluation import make_inception
from rae_dit.storage.files import replacing, write_json
from rae_dit.storage.places import place as storage_place
from rae_dit.training.sharding import (
    batch_sharding,
    local_rows,
    make_mesh,
    replicated,
    shard_batch,
)
from rae_dit.weights.hub import pinned
from rae_dit.weights.lpips import read_lpips
from rae_dit.workdir import check_shared

log = logging.getLogger(__name__)
SHOWN = 16


class Pair(NamedTuple):
    """This process's images of a batch and their reconstructions, float32 [b, H, W, 3]."""

    numbers: np.ndarray  # place of each image in the whole set
    originals: np.ndarray
    results: np.ndarray
    lpips: np.ndarray | None  # float [b]


def reconstruct(config: Config, workdir: Path) -> None:
    """Writes reconstruction.json and reconstructions.png into the workdir.

    The decoder is that of `decoder.checkpoint`, or of the workdir's own run. With
    `reconstruct.path`, each picture is also written beside its reconstruction into
    reconstructions/.

    Raises:
        ConfigError: a path does not hold what it should; one line, before anything is compiled.
        WeightsError: a file of weights is another network's.
    """
    config = weights.with_own_decoder(config, workdir)
    check(config)
    source = open_images(config)
    extractor = rfid_extractor(config, source)
    if config.reconstruct.path:  # every process writes its pictures
        folder = workdir / "reconstructions"
        on_first_process(lambda: folder.mkdir(parents=True, exist_ok=True))
        check_shared(folder)
    mesh = make_mesh(config.sharding.fsdp)
    sums = {"images": 0.0}
    before, after = MetricState.of([FID]), MetricState.of([FID])
    shown: list[Pair] = []
    with jax.default_matmul_precision(models.matmul_precision(config)):
        for pair in pairs(config, source, mesh):
            found = errors(pair.originals, pair.results)
            found |= {} if pair.lpips is None else {"lpips": pair.lpips}
            for name, values in found.items():
                sums[name] = sums.get(name, 0.0) + float(np.sum(values))
            sums["images"] += len(pair.numbers)
            if extractor is not None and len(pair.numbers):
                before.update(pair.numbers, extractor(pair.originals), None)
                after.update(pair.numbers, extractor(pair.results), None)
            if sum(len(some.numbers) for some in shown) < SHOWN:
                shown.append(pair)
            if config.reconstruct.path:
                write_pairs(folder, source, pair)
    report = means([json.loads(part) for part in allgather_bytes(json.dumps(sums).encode())])
    if extractor is not None:
        reference, made = merge_processes(before), merge_processes(after)
        report["rfid"] = made.compute(("fid",), reference)["fid"]
    if jax.process_index() == 0:
        draw(workdir / "reconstructions.png", shown)
        write_json(workdir / "reconstruction.json", report | provenance(config, source))
    log.info("reconstruction: %s", report)


def check(config: Config) -> None:
    """Checks files of weights and image size before anything is compiled.

    Raises:
        ConfigError: a file of weights is missing, or images are too small for LPIPS.
    """
    for field, path in (
        ("evaluate.inception", config.evaluate.inception),
        ("perceptual.vgg", config.perceptual.vgg),
        ("perceptual.linear", config.perceptual.linear),
    ):
        if path and not storage_place(path).is_file():
            raise ConfigError(f"{field}: got {path!r}; expected a file of weights or ''")
    if config.perceptual.vgg and config.data.image_size < LPIPS_MINIMUM:
        raise ConfigError(
            f"perceptual.vgg: got {config.perceptual.vgg!r}; expected '' for images of "
            f"{config.data.image_size} pixels; LPIPS needs {LPIPS_MINIMUM}"
        )


def open_images(config: Config) -> Source:
    """Opens the pictures, cropped to squares of `data.image_size`, or the held-out images."""
    if not (path := config.reconstruct.path):
        return data.held_out(config)
    with as_config_error("reconstruct.path"):
        pictures = share(lambda: open_pictures(path), SourceError)
        require_same(lambda: {"reconstruct.path: checksum": open_pictures(path).fingerprint})
    log.info("%s", "; ".join([f"{path}: {len(pictures)} pictures", *pictures.listing.remarks]))
    return Images(
        files=pictures,
        image_size=config.data.image_size,
        num_classes=config.data.num_classes,
        crop="adm_center",
        max_bad_share=0.0,  # requested pictures are never substituted
    )


def rfid_extractor(config: Config, source: Source) -> FeatureExtractor | None:
    """Loads the Inception if its weights are given and there are at least two images."""
    settings = config.evaluate
    count = min(len(source), config.reconstruct.num_images or len(source))
    if not settings.inception or count < 2:
        return None
    return make_inception(settings.inception, settings.batch_size)


def pairs(config: Config, source: Source, mesh: Mesh) -> Iterator[Pair]:
    """Yields this process's share of the images with their reconstructions."""
    size = config.data.batch_size
    rows = local_rows(mesh, size)
    lpips = lpips_on(config, mesh)
    graph, parameters = weights.place_rae(config, mesh, decoder=True)
    batches = ordered_batches(
        source,
        batch_size=size,
        limit=config.reconstruct.num_images,
        num_workers=config.data.num_workers,
        rows=rows,
    )
    total = -(-min(len(source), config.reconstruct.num_images or len(source)) // size)
    with batches:
        for number, batch in enumerate(progress(batches, "reconstruction", total)):
            real = batch["weight"] > 0
            image = shard_batch(batch, mesh)["image"]
            result = codec.reconstruct(graph, parameters, image)
            distance = None if lpips is None else compare(*lpips, image, result)
            yield Pair(
                (number * size + rows)[real],
                to_float(batch["image"][real]),
                addressable_rows(result, mesh)[real],
                None if distance is None else addressable_rows(distance, mesh)[real],
            )


def lpips_on(config: Config, mesh: Mesh) -> tuple[nnx.GraphDef, nnx.State] | None:
    """Loads LPIPS onto every device if its weights are given."""
    if not config.perceptual.vgg:
        return None
    graph, state = nnx.split(read_lpips(config.perceptual.vgg, config.perceptual.linear))
    return graph, place(state, replicated(mesh))


@jax.jit(static_argnums=0)
def compare(
    graph: nnx.GraphDef,
    parameters: Tree | nnx.State,
    original: codec.Image,
    result: Float[Array, "B H W 3"],
) -> Float[Array, " B"]:
    """Computes LPIPS of each pair, float32 whatever the run's precision."""
    with jax.default_matmul_precision("highest"):
        distance: Float[Array, " B"] = nnx.merge(graph, parameters)(to_unit(original), result)
    return distance


def addressable_rows(array: Array, mesh: Mesh) -> np.ndarray:
    """Returns the rows of a global array that this process holds, in order."""
    shards = jax.device_put(array, batch_sharding(mesh)).addressable_shards
    in_order = sorted(shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in in_order])


def write_pairs(folder: Path, source: Source, pair: Pair) -> None:
    """Writes NAME.png for each image: the original left, its reconstruction right."""
    assert isinstance(source, Images)
    folder.mkdir(parents=True, exist_ok=True)
    for number, both in zip(
        pair.numbers, zip(pair.originals, pair.results, strict=True), strict=True
    ):
        name = PurePath(source.name(int(number))).name
        picture = Image.fromarray(to_uint8(np.concatenate(both, axis=1)))
        with replacing(folder / f"{name}.png") as temporary:
            picture.save(temporary, "PNG")


def draw(path: Path, shown: list[Pair]) -> None:
    """Draws the first images beside their reconstructions."""
    before = np.concatenate([pair.originals for pair in shown])
    after = np.concatenate([pair.results for pair in shown])
    reconstruction_grid(path, before[:SHOWN], after[:SHOWN], columns=SHOWN)


def provenance(config: Config, source: Source) -> dict[str, object]:
    """Returns all that the measures depend on, for the report."""
    return {
        "source": config.reconstruct.path or config.data.source,
        "fingerprint": source.fingerprint,
        "image_size": config.data.image_size,
        "encoder": pinned(config.encoder.pretrained) or config.encoder.checkpoint,
        "decoder": pinned(config.decoder.pretrained) or config.decoder.checkpoint,
        "encoder.layers": config.encoder.layers,
        "encoder.add_mean": config.encoder.add_mean,
        "decoder.pixels": config.decoder.pixels,
        "precision": config.precision,
        "inception": file_record(config.evaluate.inception),
        "vgg": file_record(config.perceptual.vgg),
        **software(),
    }
