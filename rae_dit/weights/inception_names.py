"""Names of the Inception's tensors in NVIDIA's TorchScript file, `inception-2015-12-05.pt`.

StyleGAN's metrics use that file. It has the weights of the same TensorFlow graph, under the graph's
names ("layers.mixed_4.tower_1.conv_2"), and no scales of batch norms, which are 1 in the graph.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from rae_dit.weights.errors import WeightsError

START = "layers."
BLOCKS = {
    "mixed": "Mixed_5b",
    "mixed_1": "Mixed_5c",
    "mixed_2": "Mixed_5d",
    "mixed_3": "Mixed_6a",
    "mixed_4": "Mixed_6b",
    "mixed_5": "Mixed_6c",
    "mixed_6": "Mixed_6d",
    "mixed_7": "Mixed_6e",
    "mixed_8": "Mixed_7a",
    "mixed_9": "Mixed_7b",
    "mixed_10": "Mixed_7c",
}
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")


def numbered(tower: str, *branches: str) -> dict[str, str]:
    """Names the convolutions of a tower, in their order: conv, conv_1, conv_2."""
    names = ["conv", *(f"conv_{number}" for number in range(1, len(branches)))]
    return {f"{tower}_{name}": branch for name, branch in zip(names, branches, strict=True)}


def numbers(branch: str, count: int) -> list[str]:
    """Returns torchvision's names of a branch: branch_1, branch_2."""
    return [f"{branch}_{number}" for number in range(1, count + 1)]


SINGLE, POOL = {"conv": "branch1x1"}, {"tower_2_conv": "branch_pool"}
DOUBLE = numbers("branch3x3dbl", 3)
FINE = SINGLE | numbered("tower", *numbers("branch5x5", 2)) | numbered("tower_1", *DOUBLE) | POOL
MIDDLE = {
    **SINGLE,
    **numbered("tower", *numbers("branch7x7", 3)),
    **numbered("tower_1", *numbers("branch7x7dbl", 5)),
    **POOL,
}
COARSE = {
    **SINGLE,
    "tower_conv": "branch3x3_1",
    "tower_mixed_conv": "branch3x3_2a",
    "tower_mixed_conv_1": "branch3x3_2b",
    "tower_1_conv": "branch3x3dbl_1",
    "tower_1_conv_1": "branch3x3dbl_2",
    "tower_1_mixed_conv": "branch3x3dbl_3a",
    "tower_1_mixed_conv_1": "branch3x3dbl_3b",
    **POOL,
}
TO_MIDDLE = {"conv": "branch3x3"} | numbered("tower", *DOUBLE)
TO_COARSE = {
    **numbered("tower", *numbers("branch3x3", 2)),
    **numbered("tower_1", *numbers("branch7x7x3", 4)),
}
CONVOLUTIONS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), FINE),
    "Mixed_6a": TO_MIDDLE,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), MIDDLE),
    "Mixed_7a": TO_COARSE,
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), COARSE),
}
# Within a convolution, whatever its batch norm is called.
LEAVES = {
    **dict.fromkeys(("conv.weight", "weight"), "conv.weight"),
    **dict.fromkeys(("bn.weight", "gamma"), "bn.weight"),
    **dict.fromkeys(("bn.bias", "bias", "beta"), "bn.bias"),
    **dict.fromkeys(("bn.running_mean", "running_mean", "mean"), "bn.running_mean"),
    **dict.fromkeys(("bn.running_var", "running_var", "var", "variance"), "bn.running_var"),
}


def is_nvidia(names: Iterable[str]) -> bool:
    """Tells whether the names are those of NVIDIA's file."""
    return any(name.startswith(START) for name in names)


def from_nvidia(stored: Mapping[str, np.ndarray], path: object) -> dict[str, np.ndarray]:
    """Returns the tensors under torchvision's names, with the scales of 1 that are left out.

    Raises:
        WeightsError: a name is not of this network.
    """
    found = {}
    for name in stored:
        new = torchvision_name(name)
        if new is None:
            raise WeightsError(
                f"{path}: got a tensor named {name}; expected the names of NVIDIA's "
                "inception-2015-12-05.pt; take pt_inception-2015-12-05-6726825d.pth "
                "(docs/evaluation.md)"
            )
        found[new] = stored[name]
    for name in [name for name in found if name.endswith("bn.bias")]:
        found.setdefault(name.replace("bn.bias", "bn.weight"), np.ones_like(found[name]))
    return found


def torchvision_name(name: str) -> str | None:
    """Translates the name of a tensor; None if it is not of this network."""
    if name in ("output.weight", "output.bias"):
        return name.replace("output", "fc")
    inner = name.removeprefix(START)
    for leaf, new in LEAVES.items():
        convolution = torchvision_convolution(inner.removesuffix(f".{leaf}"))
        if inner.endswith(f".{leaf}") and convolution:
            return f"{convolution}.{new}"
    return None


def torchvision_convolution(name: str) -> str | None:
    """Translates the name of a convolution: "mixed_4.tower_1.conv" -> "Mixed_6b.branch7x7dbl_1"."""
    block, _, inside = name.partition(".")
    stem = {f"conv_{number}" if number else "conv": new for number, new in enumerate(STEM)}
    if not inside:
        return stem.get(block)
    convolution = CONVOLUTIONS.get(BLOCKS.get(block, ""), {}).get(inside.replace(".", "_"))
    return convolution and f"{BLOCKS[block]}.{convolution}"
