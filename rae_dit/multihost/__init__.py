"""What the processes of a run do together: join, agree, broadcast, sum, stop and end.

JAX is imported inside the functions: the command line calls `find_process_info` and reports
mistakes in the flags before JAX is imported.
"""

from rae_dit.multihost.agreement import (
    VISIBLE_SECONDS,
    allgather_bytes,
    broadcast_bytes,
    broadcast_set,
    decide,
    first_error,
    on_first_process,
    require_same,
    share,
    wait_until_visible,
)
from rae_dit.multihost.ending import EndTogether, StopAtOnce, closing
from rae_dit.multihost.placement import place
from rae_dit.multihost.preemption import Preemption
from rae_dit.multihost.processes import ProcessInfo, find_process_info, in_cluster, initialize

__all__ = [
    "VISIBLE_SECONDS",
    "EndTogether",
    "Preemption",
    "ProcessInfo",
    "StopAtOnce",
    "allgather_bytes",
    "broadcast_bytes",
    "broadcast_set",
    "closing",
    "decide",
    "find_process_info",
    "first_error",
    "in_cluster",
    "initialize",
    "on_first_process",
    "place",
    "require_same",
    "share",
    "wait_until_visible",
]
