"""A DiT^DH put together for the loop of a solver, which evaluates it many times."""

from typing import Any

from flax import nnx

from rae_dit.models.ddt import DDT
from rae_dit.models.float8_stack import quantize_stack


def merge_for_loop(graph: nnx.GraphDef, parameters: Any, *, float8: bool = False) -> DDT:
    """Returns the model with matrices cast or rounded once, ahead of the loop.

    Args:
        graph: structure of the model.
        parameters: an `nnx.State`, or the plain nested dict of one.
        float8: round the blocks' matrices to 8-bit floats, as a model of such products does.
    """
    ddt: DDT = nnx.merge(graph, parameters)
    for stack in ddt.stacks().values():
        if float8 or ddt.float8:
            quantize_stack(stack)
        stack.cast_matrices()
    return ddt
