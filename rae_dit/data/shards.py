"""Finding the files of a data set, and saying what was there when they are not found."""

import glob
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from rae_dit.data import shard_names
from rae_dit.data.files import SourceError
from rae_dit.storage.places import is_url, place
from rae_dit.storage.reading import matches

_SHOWN = 5


class Shards(NamedTuple):
    """The files of one split.

    Attributes:
        files: sorted by name; at least one.
        remarks: what was left out, a phrase each.
    """

    files: list[Path]
    remarks: tuple[str, ...]


def kind_of(name: str) -> str:
    """Returns the ending of a file's name or "hidden": what is left out is counted by it."""
    return "hidden" if name.startswith(".") else PurePath(name).suffix.lower() or "no ending"


def left_out(kinds: Counter[str]) -> tuple[str, ...]:
    """Describes what a reader left out: ("left out: 2 .txt, 1 hidden",), or () if nothing."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    most = [f"{count:,} {kind}" for kind, count in ordered]
    more = [f"{len(most) - _SHOWN} other kinds"] if len(most) > _SHOWN else []
    return (f"left out: {', '.join(most[:_SHOWN] + more)}",) if most else ()


def is_number(name: str) -> bool:
    """Tells whether a class is named by a whole number."""
    return name.isascii() and name.isdecimal()


def sorted_as_strings(classes: tuple[str, ...]) -> str | None:
    """Says where classes named by numbers are not in the order of the numbers; None if they are."""
    if not all(map(is_number, classes)):
        return None
    for label, (name, number) in enumerate(zip(classes, sorted(classes, key=int), strict=True)):
        if name != number:
            return f"classes are numbers sorted as strings: {name!r} is label {label}"
    return None


def found_in(folder: Path) -> str:
    """Describes the content of a directory: "3 files (a.txt, ...) and 1 directory (b)"."""
    files: list[str] = []
    folders: list[str] = []
    for path in sorted(folder.iterdir()):
        (folders if path.is_dir() else files).append(path.name)
    parts = []
    for names, word in ((files, "file"), (folders, "directory")):
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            plural = word if len(names) == 1 else {"file": "files"}.get(word, "directories")
            parts.append(f"{len(names):,} {plural} ({shown})")
    return " and ".join(parts) or "nothing"


def directory(path: str, expected: str) -> Path:
    """Checks that `path` is a directory.

    Args:
        path: as the user gave it.
        expected: what it should be, for the error.

    Returns:
        The directory.

    Raises:
        SourceError: the path is empty, missing or a file.
    """
    if not path:
        raise SourceError(f"got ''; expected {expected}")
    folder = place(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise SourceError(f"got {path!r}, which is a file; expected {expected}")
    if is_url(folder):
        raise SourceError(f"got {path!r}, below which nothing is; expected {expected}")
    parent = next(above for above in folder.absolute().parents if above.is_dir())
    raise SourceError(
        f"got {path!r}, which does not exist ({parent} holds {found_in(parent)}); "
        f"expected {expected}"
    )


def find_shards(path: str, suffixes: tuple[str, ...]) -> Shards:
    """Finds the files of one split, sorted by name.

    Args:
        path: a file; a directory, of which all files with one of the suffixes are taken but the
            cache-*.arrow files of `datasets`; or a pattern such as "DIRECTORY/train-*" or
            "DIRECTORY/{0000..0146}.tar".
        suffixes: of files to take, with the dot.

    Returns:
        At least one file; all of one suffix and of one split.

    Raises:
        SourceError: there are none, they are of several kinds or splits, or files named
            NAME-00000-of-00003 are missing or there twice.
    """
    kinds = " or ".join(f"*{suffix}" for suffix in suffixes)
    expected = f"a directory of {kinds} files, or a pattern such as 'DIRECTORY/train-*'"
    matched, what, counts = _matches(path, expected)
    shards = sorted(p for p in matched if p.suffix in suffixes and not p.name.startswith("."))
    if not shards:
        raise SourceError(f"got {what}; expected {expected}")
    if len({shard.suffix for shard in shards}) > 1:
        found = ", ".join(sorted({shard.suffix for shard in shards}))
        raise SourceError(f"got {what}, with {found} files; expected files of one kind")
    of_split = {split: shard for shard in shards if (split := shard_names.split_of(shard.name))}
    if len(of_split) > 1:
        splits = sorted(of_split)
        raise SourceError(
            f"got {what}, of the splits {', '.join(splits)}; expected one split; "
            f"give a pattern such as '{shards[0].parent}/{splits[-2]}*'"
        )
    others = [p for p in matched if p not in {*shards}]
    counts.update("directory" if p.is_dir() else kind_of(p.name) for p in others)
    return Shards(shards, (*left_out(counts), *_check_numbers(path, what, shards)))


def _matches(path: str, expected: str) -> tuple[list[Path], str, Counter[str]]:
    """Lists the files that a path names, describes it, and counts by-products left out."""
    given = place(path)
    if given.is_file() and path:
        return [given], f"the file {path!r}", Counter()
    if given.exists() or not (glob.has_magic(path) or "{" in path):
        folder = directory(path, expected)
        files = list(folder.iterdir())
        own = [file for file in files if not shard_names.is_by_product(file.name)]
        by_products = Counter({"cache-*.arrow": len(files) - len(own)})
        return own, f"{path!r}, which holds {found_in(folder)}", +by_products
    try:
        patterns = shard_names.expand_braces(str(given))
    except ValueError as error:
        raise SourceError(f"got {path!r}, which names {error}; expected fewer") from error
    found = matches(patterns)
    matched = [file for files in found.values() for file in files]
    lost = [pattern for pattern, files in found.items() if not files]
    if lost and matched:
        raise SourceError(
            f"got {path!r}, which names {len(patterns):,} files, of which {len(lost):,} do not "
            f"exist (first {lost[0]!r}); expected all of them"
        )
    return matched, f"{path!r}, which matches {len(matched):,} files", Counter()


def _check_numbers(path: str, what: str, shards: Iterable[Path]) -> tuple[str, ...]:
    """Checks that NAME-00000-of-00003 files are whole sets; remarks on a part that was chosen.

    Raises:
        SourceError: some are there twice; or are missing, and the path does not choose a part.
    """
    names = [shard.name for shard in shards]
    if problem := shard_names.doubled(names):
        raise SourceError(
            f"got {what}, {problem}; expected every shard once; remove those of another upload, "
            "or give a pattern of the files to read"
        )
    problem = shard_names.missing(names)
    if problem is None:
        return ()
    if place(path).is_dir() or not shard_names.chooses_shards(path):
        raise SourceError(
            f"got {what}, {problem}; expected whole sets; download again what is missing, "
            "or give a pattern of the files to read"
        )
    return (f"read {problem}",)
