"""Cross-compilation for TPUs, as far as a plan needs it.

libtpu first decides everything that a plan asks for: how the program is divided among the chips,
what is fused, where each buffer lies. After that it writes machine code, kernel by kernel, which
took 150 to 180 of 200 CPU seconds for DiT^DH-XL on 256 TPU v5e (docs/planning.md), and which nobody
will run. No option leaves it out without changing the program too. But on request libtpu writes the
finished program and its buffers to a directory before it begins. So a child process compiles, and
is ended once these files are there:

    ...after_optimizations.txt                          what `Compiled.as_text()` would give
    ...after_optimizations-buffer-assignment.txt        a line for every buffer
    ...after_optimizations_after_buffer_assignment.txt  the last of them: the others are complete

A child that comes to its end without these (another libtpu may name its files otherwise, or the
program does not fit) sends what it found in the usual way.
"""

import logging
import multiprocessing
import pathlib
import re
import tempfile
import time
from multiprocessing.connection import Connection

from rae_dit.config import Config
from rae_dit.planning.compiled import Compiled, abstract_step, compile_step
from rae_dit.planning.topology import find_devices
from rae_dit.training.sharding import make_mesh

PROGRAM = "*.after_optimizations.txt"
BUFFERS = "*.after_optimizations-buffer-assignment.txt"
LAST = "*.after_optimizations_after_buffer_assignment.txt"
PATIENCE = 0.2  # seconds between looks
ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (.*)", re.MULTILINE)


def cross_compile_step(config: Config, topology: str) -> Compiled:
    """Compiles a step for TPUs that are not attached, as `compiled.compile_step` does for others.

    Args:
        config: one `without_files`.
        topology: a TPU's; the environment must be prepared for it (`topology.prepare`).

    Raises:
        RuntimeError: the child could not compile; its error is on stderr.
    """
    started = time.perf_counter()
    # spawn: a fork of a process in which jax has threads may hang.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as directory:
        child = context.Process(target=compile_and_send, args=(config, topology, directory, sender))
        child.start()
        sender.close()  # so that the end of the child closes the pipe
        try:
            found = await_program(pathlib.Path(directory), receiver)
        finally:
            child.kill()
            child.join()
            receiver.close()
    return found._replace(seconds=time.perf_counter() - started)


def compile_and_send(config: Config, topology: str, directory: str, sender: Connection) -> None:
    """Compiles and sends the result; the parent ends this child process."""
    logging.getLogger("rae_dit").setLevel(logging.ERROR)  # no word about random weights
    step = abstract_step(config, make_mesh(config.sharding.fsdp, find_devices(topology)))
    options: dict[str, str | bool] = {"xla_dump_to": directory, "xla_dump_hlo_as_text": True}
    sender.send(compile_step(step, options))


def await_program(directory: pathlib.Path, receiver: Connection) -> Compiled:
    """Waits for the child's file or its message, whichever comes first."""
    while not receiver.poll(PATIENCE):
        if list(directory.glob(LAST)):
            (program,), (buffers,) = directory.glob(PROGRAM), directory.glob(BUFFERS)
            return Compiled(temporary_bytes(buffers.read_text()), program.read_text(), 0.0)
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError("the compile failed in a child process; its error is above") from error


def temporary_bytes(buffers: str) -> int:
    """Counts bytes of main memory that are neither arguments nor results laid into them.

    A line such as "allocation 9: size 512, color 1, preallocated-temp:" names a buffer; colors
    other than 0, which goes unnamed, are memories on the chip or of the host.
    """
    return sum(
        int(size)
        for size, kind in ALLOCATION.findall(buffers)
        if not re.match(r"color|parameter|thread-local", kind)
    )
