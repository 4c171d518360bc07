"""An objective: what a training run minimizes, in the two halves that the step treats differently.

* `sample_inputs` does everything that is random or frozen, once, for the whole batch: encode the
  images, sample times and noise, drop labels, ask a teacher;
* `loss` is a deterministic, differentiable function of the parameters and of those inputs. Its
  batch may be cut into micro-batches without changing what is computed.

So accumulating the gradient of k micro-batches equals the gradient of the whole batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key

Tree = dict[str, Any]
PerSample = tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]


class Objective(NamedTuple):
    """The two halves of an objective.

    Attributes:
        sample_inputs: (frozen, batch, key) -> inputs, a dict of arrays with a leading batch axis.
        loss: (params, frozen, inputs) -> (loss [B], {name: metric [B]}).
    """

    sample_inputs: Callable[[Tree, Tree, Key[Array, ""]], Tree]
    loss: Callable[[Tree, Tree, Tree], PerSample]
