"""Directories of weights: which file to read, and what a directory is that has none to read."""

import logging
import re
from pathlib import Path

from rae_dit.weights.distributed_checkpoint import is_distributed
from rae_dit.weights.errors import WeightsError

log = logging.getLogger(__name__)

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
)
# The same with a variant: model.fp16.safetensors, model.safetensors.index.fp16.json.
VARIANT = re.compile(
    r"(model|diffusion_pytorch_model)\.(\w+\.safetensors|safetensors\.index\.\w+\.json)"
)
SINGLE = (".pt", ".pth", ".ckpt", ".safetensors")


def weight_file(directory: Path) -> Path:
    """Finds the file of weights, or the index of its shards, in a Hugging Face directory.

    A variant such as fp16 is taken where there is no other, which is logged.

    Raises:
        WeightsError: if there is none, or there are several variants.
    """
    for name in WEIGHT_FILES:
        if (directory / name).exists():
            return directory / name
    names = [path.name for path in sorted(directory.iterdir()) if VARIANT.fullmatch(path.name)]
    names = [name for name in names if name.endswith(".json")] or names
    if len(names) == 1:
        log.warning("%s: taking the variant %s; there is no other", directory, names[0])
        return directory / names[0]
    found = f"the variants {', '.join(names)}; expected one" if names else contents(directory)
    raise WeightsError(f"{directory}: got {found}; expected one of {', '.join(WEIGHT_FILES)}")


def single_file(path: Path) -> Path:
    """Finds the one file of weights in a directory; a file is returned as it is.

    So is a checkpoint of torch.distributed, which is a directory.

    Raises:
        WeightsError: if there is none, or more than one.
    """
    if path.is_file() or is_distributed(path):
        return path
    found = [p for p in sorted(path.iterdir()) if p.suffix in SINGLE]
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in found)
    kind = f"{len(found)} files of weights ({names})" if found else contents(path)
    raise WeightsError(f"{path}: got {kind}; expected one file of weights; name it")


def contents(directory: Path) -> str:
    """Describes a directory without a file that is read, for an error."""
    names = sorted(path.name for path in directory.iterdir())
    if any(name.endswith(".distcp") for name in names):
        return "shards of a torch.distributed checkpoint without its .metadata; copy that too"
    if {"ema", "train", "integrity"} <= {*names}:
        return (
            "a step of a rae_dit run without the run's config.json; put it at "
            "RUN/checkpoints/STEP below the config.json of that run"
        )
    if "checkpoints" in names:
        return "a run of rae_dit without its config.json; copy that too"
    if "_CHECKPOINT_METADATA" in names:
        return "a checkpoint of Orbax that is not of a run of rae_dit"
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"nothing that is read among {listed}" if names else "an empty directory"
