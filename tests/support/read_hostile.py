"""Opens files of weights one by one, each in a process of little memory; prints what came of it.

python read_hostile.py DIRECTORY MEGABYTES      prints JSON: name -> "WeightsError: …", or what else
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from rae_dit.weights.errors import WeightsError
from rae_dit.weights.tensor_file import open_tensors

SECONDS = 20


def outcome(path: Path) -> str:
    """Opens a file and reads all of its tensors."""
    try:
        tensors = open_tensors(path)
        return f"read {sum(tensors[name].size for name in tensors)} numbers"
    except WeightsError as error:
        return f"WeightsError: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def in_child(path: Path, megabytes: int) -> str:
    """Returns the outcome in a process that may take so much more memory."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = now + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.alarm(SECONDS)
        os.write(write, outcome(path)[:4000].encode(errors="replace"))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"ended by {status}"


if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).iterdir())
    print(json.dumps({path.name: in_child(path, int(sys.argv[2])) for path in files}))
