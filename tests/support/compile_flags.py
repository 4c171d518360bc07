"""XLA flags that make compiling on CPUs cheap; importing this imports no jax."""

import importlib.util
import mmap
from pathlib import Path

EMITTERS = "xla_cpu_use_fusion_emitters"


def known(flag: str) -> bool:
    """Whether the installed jaxlib has the flag: XLA ends a process that is given another one.

    The name ends with a zero byte where it is a flag's; jaxlib 0.12 has it as a field's alone.
    """
    spec = importlib.util.find_spec("jaxlib")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    for path in Path(spec.submodule_search_locations[0]).glob("*.so"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(flag.encode() + b"\0") >= 0:
                return True
    return False


# Programs of tests are small: compiling them takes longer than running them. Without the emitters
# a gradient of a small DiT^DH compiles in 0.7 s of CPU time instead of 2.3 s.
CHEAP = "--xla_backend_optimization_level=0"
if known(EMITTERS):
    CHEAP += f" --{EMITTERS}=false"
