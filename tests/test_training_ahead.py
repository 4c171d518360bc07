"""The step is compiled once, in a thread, for the batches that the loader gives."""

import logging
from pathlib import Path

import pytest
from support.small_run import small_config
from support.whole_run import SETTINGS

from rae_dit.data.latents import Manifest, StoredLatents
from rae_dit.data.pipeline import train_batches
from rae_dit.modes.train import train
from rae_dit.setup import data
from rae_dit.training.ahead import batch_shapes

COMPILER = "jax._src.interpreters.pxla"


def compiled_by(caplog: pytest.LogCaptureFixture) -> list[str | None]:
    """Threads that compiled a step since the last call."""
    found = [
        r.threadName for r in caplog.records if r.getMessage().startswith("Compiling jit(step)")
    ]
    caplog.clear()
    return found


def test_a_start_compiles_its_step_once_in_the_thread(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, COMPILER)
    for last, compiles in ((1, 1), (2, 1), (2, 0)):  # new, continued, finished
        train(small_config(**(SETTINGS | {"optim.max_steps": last})), tmp_path)
        threads = compiled_by(caplog)
        assert len(threads) == compiles
        assert all(str(name).startswith("compile") for name in threads)


@pytest.mark.parametrize("source", ["digits", "synthetic"])
def test_shapes_are_those_of_the_images(source):
    config = small_config(**{"data.source": source, "data.num_classes": 10})
    examples = data.open_source(config, "train")
    with train_batches(
        examples, batch_size=config.data.batch_size, seed=0, start_step=0, num_workers=0, flip=True
    ) as stream:
        batch = next(stream)
    assert batch_shapes(config, examples) == {n: (v.shape, v.dtype) for n, v in batch.items()}


@pytest.mark.parametrize(("storage", "bytes_each"), [("fp32", 4), ("bf16", 2), ("fp8", 1)])
def test_shapes_are_those_of_the_latents(storage, bytes_each):
    manifest = Manifest({}, 32, (2, 2, 3), storage, False, 32, 10)
    record = bytes(4 + (12 if storage == "fp8" else 0) + 12 * bytes_each)
    source = StoredLatents(Path(), manifest, [record] * 32)
    config = small_config(**{"data.batch_size": 8})
    with train_batches(
        source, batch_size=8, seed=0, start_step=0, num_workers=0, flip=False
    ) as stream:
        batch = next(stream)
    assert ("scale" in batch) == (storage == "fp8")
    assert batch_shapes(config, source) == {n: (v.shape, v.dtype) for n, v in batch.items()}
    assert batch["latent"].dtype.itemsize == bytes_each
