"""Eight CPU devices, checked shapes and a compile cache; set before anything imports jax."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bucket import bucket
from support.compile_flags import CHEAP

__all__ = ["bucket"]  # a fixture

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {CHEAP}"
# Many tests compile the same small programs, in this process, its siblings and child processes.
# Making one model runs 60 programs of one operation each: 8 s of CPU time compiled, 2 s read.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import jax  # after the variables above
from jaxtyping import install_import_hook

# Dtypes and shapes in the annotations of these rooms hold at every call that a test makes.
install_import_hook(
    [
        "rae_dit.diffusion",
        "rae_dit.models.attention",
        "rae_dit.models.conditioning",
        "rae_dit.models.ddt",
        "rae_dit.models.ddt_block",
        "rae_dit.models.ddt_layers",
        "rae_dit.models.discriminator",
        "rae_dit.models.features",
        "rae_dit.models.layers",
        "rae_dit.models.lpips",
        "rae_dit.models.rae",
        "rae_dit.models.stack",
        "rae_dit.models.transformer",
        "rae_dit.training.optim",
        "rae_dit.objectives",
        "rae_dit.training.gan_step",
        "rae_dit.training.gan_updates",
        "rae_dit.training.step",
        "rae_dit.evaluation.latent_statistics",
    ],
    "beartype.beartype",
)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
    """Compiled programs of one file are of no use to the next, and hold gigabytes together."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _restore_log() -> Iterator[None]:
    """The command line sends messages to the stderr of its test, which is closed after it."""
    log = logging.getLogger("rae_dit")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate, log.level = before


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that took its four steps in one go."""
    from support.small_run import small_config
    from support.whole_run import SETTINGS

    from rae_dit.modes.train import train

    workdir = tmp_path_factory.mktemp("straight")
    train(small_config(**SETTINGS), workdir)
    return workdir
