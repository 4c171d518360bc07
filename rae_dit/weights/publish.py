"""Directories of published models: what is in them, and how they are found.

    rae_dit.json              what the directory is (`Manifest`)
    config.json               of the run, without paths of its machine
    ddt.safetensors           the DiT^DH, under the names of the reference if it has such
                              (`Manifest.ddt`); a run of stage 1 has none
    autoencoder.safetensors   decoder, statistics and perhaps encoder, under our own names
    README.md  samples.png    the model card and its picture

Weights are bit for bit those of the run.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from rae_dit.storage.files import write_json
from rae_dit.storage.places import is_url, place
from rae_dit.weights.config_file import read_json
from rae_dit.weights.errors import WeightsError
from rae_dit.weights.hub import HubId, find
from rae_dit.weights.tensor_file import open_tensors, save_tensors

MANIFEST = "rae_dit.json"
CONFIG = "config.json"
DDT = "ddt.safetensors"
AUTOENCODER = "autoencoder.safetensors"
CARD = "README.md"
SAMPLES = "samples.png"
NAMES = (MANIFEST, CONFIG, DDT, AUTOENCODER, CARD, SAMPLES)
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `rae_dit.json` says.

    Attributes:
        step: of the run.
        ddt: names of the tensors of the DiT^DH: "reference" or "own"; "" if there is none.
        encoder: whether the encoder's weights are in the directory; else the config names it.
        class_names: short name of each class.
        version: of rae_dit that wrote it.
    """

    step: int
    ddt: str
    encoder: bool
    class_names: tuple[str, ...]
    version: str


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest, which makes the directory a published one: last of all files."""
    write_json(directory / MANIFEST, {"format": FORMAT, **dataclasses.asdict(manifest)})


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest.

    Raises:
        WeightsError: it is damaged, or of a newer format.
    """
    path = directory / MANIFEST
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise WeightsError(f"{path}: got format {content.get('format')!r}; expected {FORMAT}")
    try:
        found = Manifest(
            step=int(content["step"]),
            ddt=str(content["ddt"]),
            encoder=bool(content["encoder"]),
            class_names=tuple(map(str, content["class_names"])),
            version=str(content["version"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        fields = ", ".join(field.name for field in dataclasses.fields(Manifest))
        raise WeightsError(f"{path}: got {error!r}; expected the fields {fields}") from error
    return found


def find_published(source: str | Path, patterns: tuple[str, ...] = ()) -> Path | None:
    """Finds the directory of a published model; None if the source is something else.

    A repository of the hub is downloaded for that: these files, and those of `patterns`, which
    the caller reads of another repository.

    Args:
        source: a directory, or the hub id of a whole repository.
        patterns: files of a repository to download besides.

    Raises:
        WeightsError: there is no such path, and the hub does not give it.
    """
    if is_url(str(source)):  # of a bucket, where runs and files are
        return None
    local = place(source)
    if not local.exists():
        if HubId.parse(str(source)).inside:
            return None
        local = find(source, (MANIFEST, CONFIG, DDT, AUTOENCODER, *patterns))
    return local if (local / MANIFEST).is_file() else None


def save_leaves(path: Path, leaves: Mapping[str, Array]) -> None:
    """Writes float32 leaves under their own names."""
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    wrong = {name: array.dtype.name for name, array in arrays.items() if array.dtype != np.float32}
    if wrong:
        raise WeightsError(f"{path}: got leaves of {wrong}; expected float32")
    save_tensors(path, arrays)


def published_file(directory: Path, name: str) -> Path:
    """Returns the path of a file that a published directory must have.

    Raises:
        WeightsError: it is not there.
    """
    path = directory / name
    if not path.is_file():
        raise WeightsError(f"{path}: missing; expected it beside {MANIFEST}; copy all the files")
    return path


def read_leaves(path: Path, like: Mapping[str, Any]) -> dict[str, Array]:
    """Reads leaves that `save_leaves` wrote.

    Args:
        path: the file.
        like: name -> anything with a shape.

    Raises:
        WeightsError: a leaf is missing, too many, misshapen or not finite.
    """
    tensors = open_tensors(path)
    if tensors.keys() != like.keys():
        different = sorted(tensors.keys() ^ like.keys())[:5]
        raise WeightsError(f"{path}: got other leaves than the config's ({different}); expected it")
    leaves = {}
    for name, wanted in like.items():
        array = tensors[name]
        if array.shape != tuple(wanted.shape) or array.dtype != np.float32:
            found = f"{array.dtype} {array.shape}"
            raise WeightsError(f"{path}: {name}: got {found}; expected float32 {wanted.shape}")
        if not np.isfinite(array).all():
            raise WeightsError(f"{path}: {name}: got numbers that are not finite; expected finite")
        leaves[name] = jnp.asarray(array)
    return leaves


def upload(directory: Path, name: str, *, private: bool) -> str:
    """Uploads a published directory to a repository of the hub, made if needed.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: the hub does not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    files = published_files(directory)
    try:
        hub = HfApi()
        hub.create_repo(name, exist_ok=True, private=private)
        commit = hub.upload_folder(
            repo_id=name,
            folder_path=directory,
            allow_patterns=[path.name for path in files],
            commit_message=f"rae_dit, step {read_manifest(directory).step}",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"--upload: got {type(error).__name__} ({reason}); expected the hub to take {name}; "
            "`hf auth login` says who you are"
        ) from error
    return str(commit)


def published_files(directory: Path) -> list[Path]:
    """Lists the files of a published directory; whatever else is there stays there."""
    return [directory / name for name in NAMES if (directory / name).is_file()]


def describe_upload(directory: Path, name: str) -> str:
    """Says what an upload sends."""
    lines = [
        f"  {path.name:<26}{path.stat().st_size / 1e6:>10.2f} MB"
        for path in published_files(directory)
    ]
    where = f"https://huggingface.co/{name}"
    return "\n".join([*lines, f"--upload sends these to {where}"])
