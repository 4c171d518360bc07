"""Images of classes among the objects in a bucket, which has no directories to be listed."""

from collections import Counter

from rae_dit.data.images import SUFFIXES
from rae_dit.data.shards import kind_of


def by_class(paths: list[str]) -> dict[str, list[str]]:
    """Groups paths by the directory that they begin with, and takes it off."""
    found: dict[str, list[str]] = {}
    for path in paths:
        top, slash, rest = path.partition("/")
        if slash and rest:
            found.setdefault(top, []).append(rest)
    return found


def images_among(paths: list[str], others: Counter[str]) -> list[bytes]:
    """Takes the images among the objects of a class, in the order that they have on a disk."""
    found: dict[bytes, list[bytes]] = {}
    hidden = set()
    for path in paths:
        parts = path.split("/")
        first = next((i for i, part in enumerate(parts) if part.startswith(".")), None)
        if first is not None:
            hidden.add("/".join(parts[: first + 1]))
        elif path.lower().endswith(SUFFIXES):
            name = path.encode(errors="surrogateescape")
            found.setdefault(name.rpartition(b"/")[0], []).append(name)
        elif parts[-1]:  # not the mark of an empty directory
            others[kind_of(parts[-1])] += 1
    others.update({"hidden": len(hidden)} if hidden else {})
    return [image for _, images in sorted(found.items()) for image in sorted(images)]
