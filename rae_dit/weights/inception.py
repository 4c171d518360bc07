"""Weights of the 2015 Inception, from the file that FID tools share.

That file is `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid (torch-fidelity ships the same
bytes as `weights-inception-2015-12-05-6726825d.pth`); safetensors and .npz with the same names are
read too. Names are torchvision's: "Mixed_5b.branch1x1.conv.weight", "….bn.running_mean", "fc.bias".
NVIDIA's TorchScript file has others (`inception_names`).
"""

from pathlib import Path

from flax import nnx

from rae_dit.models.inception import InceptionV3
from rae_dit.models.inception_blocks import BLOCKS, convolutions
from rae_dit.storage.reading import local_copy
from rae_dit.weights.inception_names import from_nvidia, is_nvidia
from rae_dit.weights.mapping import (
    Entry,
    Layout,
    WeightsError,
    build,
    import_tensors,
    linear,
    parameters_of,
    under,
)
from rae_dit.weights.tensor_file import open_tensors

KERNEL = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
COUNTER = ".num_batches_tracked"  # of torch's batch norm: not used in the forward pass
CONV_NORM = [
    Entry("kernel", ("conv.weight",), KERNEL),
    Entry("scale", ("bn.weight",)),
    Entry("bias", ("bn.bias",)),
    Entry("mean", ("bn.running_mean",)),
    Entry("variance", ("bn.running_var",)),
]


def read_inception(path: str | Path) -> InceptionV3:
    """Reads the network from a file.

    Args:
        path: the .pth of pytorch-fid or torch-fidelity, a safetensors or .npz copy of it, or the
            TorchScript file of NVIDIA's StyleGAN.

    Raises:
        WeightsError: there is no such file, it is damaged, or its tensors are not exactly those
            of the 2015 Inception; names every one that is missing, not known or misshapen.
    """
    path = local_copy(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: got no file; expected pt_inception-2015-12-05-6726825d.pth "
            "(docs/evaluation.md says where it is)"
        )
    stored = open_tensors(path)
    if is_nvidia(stored):
        stored = from_nvidia(stored, path)
    tensors = {name: stored[name] for name in stored if not name.endswith(COUNTER)}
    abstract = nnx.eval_shape(InceptionV3)
    parameters = import_tensors(
        entries(), tensors, parameters_of(abstract), what=f"{path} (Inception)", fixed={}
    )
    return build(abstract, parameters)


def entries() -> list[Entry]:
    """Maps parameter paths to torch tensor names."""
    found = linear("fc", "fc")
    for name, path in BLOCKS.items():
        block = "" if name.startswith("stem") else f"{name}."
        for conv in convolutions(path):
            found += under(f"{name}.{conv.name}", f"{block}{conv.name}", CONV_NORM)
    return found
