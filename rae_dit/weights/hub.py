"""Paths on disk and ids of the Hugging Face hub, as users name them."""

from pathlib import Path

from rae_dit.models.encoders import FAMILIES
from rae_dit.weights.mapping import WeightsError

ENCODER_FILES = ("config.json", "preprocessor_config.json")
SAFE_FILES = ("*.safetensors", "*.safetensors.index.json")


def find_encoder(name: str | Path) -> Path:
    """Finds the directory of an encoder: a local one, a hub id, or one of the reference's names."""
    if not Path(name).exists():
        for family in FAMILIES:
            name = family.huggingface.aliases.get(str(name), name)
    path = find(name, (*ENCODER_FILES, *SAFE_FILES))
    if path.is_dir() and not list(path.glob("*.safetensors")) and not Path(name).exists():
        return find(name, (*ENCODER_FILES, "pytorch_model.bin"))
    return path


def find(name: str | Path, patterns: tuple[str, ...]) -> Path:
    """Returns a local path, or downloads a hub id "owner/repository[/path inside]".

    Args:
        name: the path or id.
        patterns: which files of a repository, or of the folder in it, are needed.

    Raises:
        WeightsError: if there is no such path and the hub does not give it.
    """
    if Path(name).exists():
        return Path(name)
    parts = str(name).split("/")
    if str(name).startswith((".", "/", "~")) or not len(parts) >= 2:
        raise WeightsError(
            f"There is no file or directory {name}; give a path that exists, or a hub id "
            "(owner/repository, with a path inside it if need be)."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    inside = "/".join(parts[2:])
    wanted = [f"{inside}/{pattern}" for pattern in patterns] + [inside] if inside else [*patterns]
    try:
        root = snapshot_download("/".join(parts[:2]), allow_patterns=wanted)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{name} is not on this disk, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {reason}). Offline, fetch it first where there is a network "
            f"(hf download {'/'.join(parts[:2])}) and give the local path."
        ) from error
    path = Path(root) / inside
    if not path.exists():
        raise WeightsError(f"The hub's {'/'.join(parts[:2])} has no {inside or 'such files'}.")
    return path
