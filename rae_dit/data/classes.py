"""Class names, from the metadata of a data source, and labels of classes by name.

No image is read: the directories of a folder, the schema of a Hugging
Face shard, the list that TFDS writes beside its records.
"""

import difflib
from pathlib import Path

from rae_dit.data.class_files import read_lines, split_id
from rae_dit.data.files import SourceError
from rae_dit.data.folder import class_directories
from rae_dit.data.readers import Kind
from rae_dit.data.shards import directory, find_shards

_NEAREST = 3


def stored_names(kind: Kind, path: str, *, numeric_classes: bool = False) -> tuple[str, ...] | None:
    """Reads the class names of a data source, in the order of the labels.

    Args:
        kind: of the source.
        path: where it is.
        numeric_classes: see `folder.open_folder`.

    Returns:
        The names; None if nothing there tells them ("tar" never does).

    Raises:
        SourceError: there is no such source.
    """
    match kind:
        case "folder":
            root = directory(path, "a directory with one directory of images per class")
            return class_directories(root, numeric_classes=numeric_classes)
        case "huggingface":
            return _huggingface_names(path)
        case "tfds":
            root = directory(path.partition("#")[0], "the directory of a prepared TFDS data set")
            listed = root / "label.labels.txt"
            return read_lines(listed) if listed.is_file() else None
        case _:
            return None


def _huggingface_names(path: str) -> tuple[str, ...] | None:
    """Reads the class names that `datasets` writes into the schema of a file."""
    # Late: pyarrow is slow to import.
    from rae_dit.data.huggingface import open_shard

    shard: Path = find_shards(path, (".parquet", ".arrow")).files[0]
    return open_shard(shard).classes


def match_names(wanted: tuple[str, ...], known: tuple[str, ...]) -> tuple[int, ...]:
    """Finds the labels of classes by name, ignoring case; "_" is a space.

    A known name may be a list of synonyms behind a WordNet id, as ImageNet's are ("n01440764
    tench, Tinca tinca"): the whole, the id and each part name the class, unless another class has
    the same part.

    Args:
        wanted: names to find.
        known: names of all classes; the place is the label.

    Raises:
        SourceError: a name that no class has, or that several have; the nearest ones are given.
    """
    whole: dict[str, set[int]] = {}
    parts: dict[str, set[int]] = {}
    for label, name in enumerate(known):
        number, rest = split_id(name)
        for text in {name, number, rest} - {""}:
            whole.setdefault(_plain(text), set()).add(label)
        for text in rest.split(","):
            parts.setdefault(_plain(text), set()).add(label)
    return tuple(_match(name, known, whole, parts) for name in wanted)


def _match(
    name: str, known: tuple[str, ...], whole: dict[str, set[int]], parts: dict[str, set[int]]
) -> int:
    """Finds one label; `whole` and `parts` say which labels a text names."""
    number, rest = split_id(name)
    found: set[int] = set()
    for text, labels in ((name, whole), (number, whole), (rest, whole), (name, parts)):
        found = found or labels.get(_plain(text), set())
    candidates = sorted(found)
    if len(candidates) > 1:
        same = ", ".join(f"{label} ({known[label]})" for label in candidates)
        raise SourceError(f"got {name!r}, which names the classes {same}; use sample.labels")
    if not candidates:
        labels = parts | whole
        near = difflib.get_close_matches(_plain(name), labels, n=_NEAREST)
        nearest = [known[min(labels[part])] for part in near] or list(known[:_NEAREST])
        shown = ", ".join(repr(other) for other in dict.fromkeys(nearest))
        word = "the nearest are" if near else "classes are named like"
        raise SourceError(f"got {name!r}, which no class is named; {word} {shown}")
    return candidates[0]


def _plain(name: str) -> str:
    """Returns a name as names are compared."""
    return " ".join(name.replace("_", " ").casefold().split())
