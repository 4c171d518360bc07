"""Compiler options by platform, and the cache of compiled programs."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar

import jax

from rae_dit.storage.places import place

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

OPTIONS: dict[str, dict[str, bool | int | str]] = {
    "gpu": {
        "xla_gpu_enable_triton_gemm": False,  # 9 % faster, docs/performance.md
        "xla_gpu_dot_merger_threshold_mb": 0,  # q, k, v of odd lengths stay apart; else equal
    },
}


class Jitted(Generic[Arguments, Result]):
    """A function compiled by `jax.jit` with the compiler options of the platform.

    The platform is looked up at the first call: doing so at import would initialize JAX before
    `jax.distributed` and the command line.
    """

    def __init__(
        self, function: Callable[Arguments, Result], jit_arguments: Mapping[str, Any]
    ) -> None:
        """Keeps the function and the arguments of `jax.jit`."""
        self.function, self.jit_arguments = function, jit_arguments
        functools.update_wrapper(self, function)

    @functools.cached_property
    def program(self) -> Any:
        """The function as `jax.jit` returns it."""
        options = OPTIONS.get(jax.default_backend())
        return jax.jit(self.function, compiler_options=options, **self.jit_arguments)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Runs the compiled function."""
        return self.program(*args, **kwargs)

    def lower(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> jax.stages.Lowered:
        """Traces the function without running it; JAX keeps what `.compile()` makes of that."""
        return self.program.lower(*args, **kwargs)


def jit(
    **jit_arguments: Any,
) -> Callable[[Callable[Arguments, Result]], Jitted[Arguments, Result]]:
    """Decorates a function with `jax.jit` and the compiler options of the platform.

    Args:
        **jit_arguments: those of `jax.jit`.
    """
    return lambda function: Jitted(function, jit_arguments)


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
