"""Compiler options by platform, and the cache of compiled programs."""

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

from rae_dit.storage.places import place

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

OPTIONS: dict[str, dict[str, bool | int | str]] = {
    "gpu": {
        "xla_gpu_enable_triton_gemm": False,  # 9 % faster, docs/performance.md
        "xla_gpu_dot_merger_threshold_mb": 0,  # q, k and v of models/odd_length.py stay apart
    },
}


def jit(
    **jit_arguments: Any,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorates a function with `jax.jit` and the compiler options of the platform.

    The platform is looked up at the first call: doing so at import would initialize JAX before
    `jax.distributed` and the command line.

    Args:
        **jit_arguments: those of `jax.jit`.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.cache
        def compiled() -> Callable[Arguments, Result]:
            options = OPTIONS.get(jax.default_backend())
            return jax.jit(function, compiler_options=options, **jit_arguments)

        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return compiled()(*args, **kwargs)

        return call

    return decorate


def use_compile_cache(directory: str) -> None:
    """Enables JAX's persistent compilation cache in a directory.

    Call it before the first compile. JAX warns and continues if it cannot write there.

    Args:
        directory: may begin with '~', or be in a bucket; created if needed. '' turns the cache off.
            The environment variable JAX_COMPILATION_CACHE_DIR takes precedence.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    path = str(place(directory)) if directory else None
    jax.config.update("jax_compilation_cache_dir", path)
