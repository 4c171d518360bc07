"""Eight CPU devices, checked shapes and a compile cache; set before anything imports jax."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs here are small: compiling them takes longer than running them.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
# Many tests compile the same small programs, in this process, its siblings and child processes.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

from jaxtyping import install_import_hook  # after the variables above

# Dtypes and shapes in the annotations of these rooms hold at every call that a test makes.
install_import_hook(
    [
        "rae_dit.autoencoder",
        "rae_dit.diffusion",
        "rae_dit.models.attention",
        "rae_dit.models.conditioning",
        "rae_dit.models.ddt",
        "rae_dit.models.layers",
        "rae_dit.models.rae",
        "rae_dit.models.stack",
        "rae_dit.models.transformer",
        "rae_dit.training.optim",
        "rae_dit.training.step",
        "rae_dit.evaluation.probe",
    ],
    "beartype.beartype",
)
