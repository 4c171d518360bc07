"""Compiler options by platform, and the cache of compiled programs."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

OPTIONS: dict[str, dict[str, bool | int | str]] = {
    "gpu": {"xla_gpu_enable_triton_gemm": False},  # 9 % faster, docs/performance.md
}


def jit(
    **jit_arguments: Any,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A decorator: `jax.jit` with the options of the platform that JAX turns out to use.

    The platform is asked for at the first call: asking while modules are imported would start JAX
    before `jax.distributed` and the command line have had their say.

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
    """Makes JAX keep what it compiles in a directory, and look there first.

    To be called before the first compile. JAX itself warns and goes on where it cannot write.

    Args:
        directory: may begin with '~'; made if needed. '' turns the cache off. A directory that the
            environment names (JAX_COMPILATION_CACHE_DIR) is kept in any case: who sets it means it.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    path = str(Path(directory).expanduser()) if directory else None
    jax.config.update("jax_compilation_cache_dir", path)
