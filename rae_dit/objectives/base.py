"""What a training run minimises, in the two halves that the step treats differently.

* `draw` does everything that is random or frozen, once, for the whole batch: encode the images,
  draw times and noise, drop labels;
* `loss` is a deterministic, differentiable function of the parameters and of what was drawn. Its
  batch may be cut into micro-batches without changing what is computed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key

Tree = dict[str, Any]
PerSample = tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]


class Objective(NamedTuple):
    """The two halves.

    Attributes:
        draw: (frozen, batch, key) -> example, a dict of arrays whose leading axis is the batch.
        loss: (params, frozen, example) -> (loss [B], {name: metric [B]}).
    """

    draw: Callable[[Tree, Tree, Key[Array, ""]], Tree]
    loss: Callable[[Tree, Tree, Tree], PerSample]
