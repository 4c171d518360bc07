"""Devices by name: local ones, TPU slices to compile for, or a CPU split into several."""

import os
import re
from collections.abc import MutableMapping

from rae_dit.config import ConfigError

EXAMPLES = "'local', 'cpu:8', 'v5e:16x16', 'v5p:4x4x8', 'v6e:8x8' or 'v4:4x4x4'"
TPU = re.compile(r"(v2|v3|v4|v5e|v5p|v6e|tpu7x):\d+(x\d+){1,2}")
CPU = re.compile(r"cpu:([1-9]\d*)")
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # or it waits for a metadata server
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two at a time have no TPU to fight over
    "TPU_WORKER_HOSTNAMES": "localhost",  # without these two it prints warnings
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any will do: the topology decides
}


def prepare(topology: str, environment: MutableMapping[str, str]) -> None:
    """Sets the variables that jax and libtpu read, once, when jax is imported.

    Args:
        topology: "local", "cpu:N" or a TPU's, such as "v5e:16x16" (chips along each axis).
        environment: `os.environ`.

    Raises:
        ConfigError: a name of no known form.
    """
    cpu = CPU.fullmatch(topology)
    if topology == "local":
        return
    if not cpu and not is_compile_only(topology):
        raise ConfigError(f"--topology: got {topology!r}; expected one such as {EXAMPLES}")
    environment["JAX_PLATFORMS"] = "cpu"
    if cpu:
        flag = f"--xla_force_host_platform_device_count={cpu[1]}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
        return
    environment.update(LIBTPU)


def is_compile_only(topology: str) -> bool:
    """Tells whether a topology names TPUs that are not attached: to compile for, not to run on."""
    return bool(TPU.fullmatch(topology))


def find_devices(topology: str) -> list:
    """Finds the devices of a topology; TPUs that are not attached can only be compiled for.

    Call `prepare` first, before jax is imported.

    Returns:
        `jax.Device`s.

    Raises:
        ConfigError: libtpu is missing, or it knows no such arrangement of chips.
    """
    import jax
    from jax.experimental import topologies

    if not is_compile_only(topology):
        devices = jax.devices()
        cpu = CPU.fullmatch(topology)
        return devices[: int(cpu[1])] if cpu else devices
    if not has_libtpu():
        raise ConfigError(
            f"--topology: got {topology!r}, which needs libtpu, and that is missing; "
            "pip install -r requirements-tpu.txt"
        )
    # A v4 chip is one device only when its two cores are joined.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        ).devices
    except Exception as error:  # libtpu's own kinds; all say what is wrong with the name
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--topology: got {topology!r}; expected one such as {EXAMPLES}; libtpu says: {reason}"
        ) from error
    return list(found)


def has_libtpu() -> bool:
    """Tells whether TPU programs can be compiled here."""
    import importlib.util

    return bool(os.environ.get("TPU_LIBRARY_PATH")) or bool(importlib.util.find_spec("libtpu"))
