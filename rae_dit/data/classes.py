"""Class names, from the metadata of a data source or from a text file.

No image is read: the directories of a folder, the schema of a Hugging
Face shard, the list that TFDS writes beside its records.
"""

import difflib
import json
from pathlib import Path

from rae_dit.data.files import SourceError
from rae_dit.data.huggingface import describe, find_columns
from rae_dit.data.readers import Kind
from rae_dit.data.shards import directory, find_shards

_NEAREST = 3


def stored_names(kind: Kind, path: str) -> tuple[str, ...] | None:
    """Reads the class names of a data source, in the order of the labels.

    Args:
        kind: of the source.
        path: where it is.

    Returns:
        The names; None if nothing there tells them ("tar" never does).

    Raises:
        SourceError: there is no such source.
    """
    match kind:
        case "folder":
            root = directory(path, "a directory with one directory of images per class")
            folders = [entry.name for entry in root.iterdir() if entry.is_dir()]
            return tuple(sorted(name for name in folders if not name.startswith(".")))
        case "huggingface":
            return _huggingface_names(find_shards(path, (".parquet", ".arrow"))[0])
        case "tfds":
            root = directory(path.partition("#")[0], "the directory of a prepared TFDS data set")
            listed = root / "label.labels.txt"
            return read_names(listed) if listed.is_file() else None
        case _:
            return None


def _huggingface_names(shard: Path) -> tuple[str, ...] | None:
    """Reads the class names that `datasets` writes into the schema of a file."""
    schema, _ = describe(shard)
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[find_columns(schema, shard).label]["names"])
    except (KeyError, TypeError, json.JSONDecodeError):
        return None


def read_names(path: str | Path) -> tuple[str, ...]:
    """Reads the non-empty lines of a UTF-8 text file, stripped.

    Raises:
        SourceError: there is no such file, it is no text, or it holds no name.
    """
    expected = "a text file with one class name a line"
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SourceError(f"got {str(path)!r} ({reason}); expected {expected}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise SourceError(f"got {str(path)!r}, which holds no name; expected {expected}")
    return names


def match_names(wanted: tuple[str, ...], known: tuple[str, ...]) -> tuple[int, ...]:
    """Finds the labels of classes by name, ignoring case.

    A known name may be a list of synonyms, as ImageNet's are ("tench, Tinca tinca"): the whole
    and each part name the class, unless another class has the same part.

    Args:
        wanted: names to find.
        known: names of all classes; the place is the label.

    Raises:
        SourceError: a name that no class has, or that several have; the nearest ones are given.
    """
    labels: dict[str, set[int]] = {}
    for label, name in enumerate(known):
        for part in {name, *name.split(",")}:
            labels.setdefault(part.strip().casefold(), set()).add(label)
    found = []
    for name in wanted:
        exact = [label for label, other in enumerate(known) if other.casefold() == name.casefold()]
        candidates = exact or sorted(labels.get(name.casefold(), ()))
        if len(candidates) > 1:
            same = ", ".join(f"{label} ({known[label]})" for label in candidates)
            raise SourceError(f"got {name!r}, which names the classes {same}; use sample.labels")
        if not candidates:
            near = difflib.get_close_matches(name.casefold(), labels, n=_NEAREST)
            nearest = [known[min(labels[part])] for part in near] or list(known[:_NEAREST])
            shown = ", ".join(repr(other) for other in dict.fromkeys(nearest))
            word = "the nearest are" if near else "classes are named like"
            raise SourceError(f"got {name!r}, which no class is named; {word} {shown}")
        found.append(candidates[0])
    return tuple(found)
