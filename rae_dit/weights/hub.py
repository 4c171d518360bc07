"""Paths on disk and ids of the Hugging Face hub, as users name them.

An id is "owner/repository", with a path inside it if need be: "owner/repository/a/model.pt". A
commit, tag or branch pins it: "owner/repository@3f2a9c1/a/model.pt".
"""

import logging
from pathlib import Path
from typing import NamedTuple, Self

from rae_dit.models.encoders import FAMILIES
from rae_dit.storage.places import place
from rae_dit.storage.reading import local_copy
from rae_dit.weights.errors import WeightsError

log = logging.getLogger(__name__)

ENCODER_FILES = ("config.json", "preprocessor_config.json")
SAFE_FILES = ("*.safetensors", "*.safetensors.index*.json")
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz")


class HubId(NamedTuple):
    """A repository of the hub, a revision of it ('' is the newest), a path inside ('' is all)."""

    repository: str
    revision: str
    inside: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parses an id.

        Raises:
            WeightsError: it is none, or rather a path on this disk that does not exist.
        """
        owner, _, rest = name.partition("/")
        repository, _, inside = rest.partition("/")
        repository, pinned, revision = repository.partition("@")
        if name.startswith((".", "/", "~")) or not owner or not repository:
            raise WeightsError(
                f"There is no file or directory {name}; give a path that exists, or a hub id "
                "(owner/repository, with a path inside it if need be)."
            )
        if not pinned and (Path(owner).is_dir() or repository.endswith(WEIGHT_SUFFIXES)):
            raise WeightsError(
                f"There is no file {name} (the hub was not asked: it is like a path on this disk; "
                f"for a repository of this name write {owner}/{repository}@main)."
            )
        if pinned and not revision:
            raise WeightsError(f"{name}: got no revision after @; expected a commit, tag or branch")
        return cls(f"{owner}/{repository}", revision.replace("%2F", "/"), inside)

    def download(self, patterns: list[str], *, offline: bool = False) -> Path:
        """Downloads files of the repository, or finds them in the hub's cache.

        Returns:
            The directory of the whole repository; its name is the commit.

        Raises:
            Exception: those of huggingface_hub.
        """
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                self.repository,
                revision=self.revision or None,
                allow_patterns=patterns,
                local_files_only=offline,
            )
        )


def find_encoder(name: str | Path) -> Path:
    """Finds the directory of an encoder: a local one, a hub id, or one of the reference's names."""
    if is_there(local := place(name)):
        return local_copy(local)
    name = hub_name(str(name))
    path = find(name, (*ENCODER_FILES, *SAFE_FILES))
    if path.is_dir() and not list(path.glob("*.safetensors")):
        return find(name, (*ENCODER_FILES, "pytorch_model.bin"))
    return path


def is_there(path: Path) -> bool:
    """Tells whether there is such a path; there is none of a name that is too long."""
    try:
        return path.exists()
    except OSError:
        return False


def hub_name(name: str) -> str:
    """Returns the hub id that one of the reference's names for encoders stands for."""
    for family in FAMILIES:
        name = family.huggingface.aliases.get(name, name)
    return name


def find(name: str | Path, patterns: tuple[str, ...]) -> Path:
    """Returns a local path, or downloads a hub id; the commit that is taken is logged.

    Args:
        name: the path, in which ~ is the home directory, or the id.
        patterns: which files of a repository, or of the folder in it, are needed.

    Raises:
        WeightsError: if there is no such path and the hub does not give it.
    """
    if is_there(local := place(name)):
        return local_copy(local)
    wanted = HubId.parse(str(name))
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    inside = wanted.inside
    files = [f"{inside}/{pattern}" for pattern in patterns] + [inside] if inside else [*patterns]
    try:
        root = wanted.download(files)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        revision = f" --revision {wanted.revision}" if wanted.revision else ""
        raise WeightsError(
            f"{name} is not on this disk, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {reason}). Offline, fetch it first where there is a network "
            f"(hf download {wanted.repository}{revision}) and give the local path."
        ) from error
    log.info("%s: commit %s of %s on the hub", name, root.name, wanted.repository)
    path = root / inside
    if not path.exists():
        raise WeightsError(f"The hub's {wanted.repository} has no {inside or 'such files'}.")
    return path


def pinned(name: str) -> str:
    """Returns a hub id with the commit that was taken, for a report; paths are unchanged.

    It asks the hub's cache on this disk, not the hub.
    """
    if not name or is_there(place(name)):
        return name
    try:
        wanted = HubId.parse(hub_name(name))
        commit = wanted.download([], offline=True).name
    except (WeightsError, OSError, ValueError):
        return name
    return "/".join(filter(None, (f"{wanted.repository}@{commit}", wanted.inside)))
