"""Compiled programs on disk, so that the next start of a run does not compile again."""

import os
from pathlib import Path


def use_compile_cache(directory: str) -> None:
    """Makes JAX keep what it compiles in a directory, and look there first.

    To be called before the first compile. JAX itself warns and goes on where it cannot write.

    Args:
        directory: may begin with '~'; made if needed. '' turns the cache off. A directory that the
            environment names (JAX_COMPILATION_CACHE_DIR) is kept in any case: who sets it means it.
    """
    import jax  # late: so that importing this file stays cheap

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    path = str(Path(directory).expanduser()) if directory else None
    jax.config.update("jax_compilation_cache_dir", path)
