"""Finding the files of a data set, and saying what was there when they are not found."""

import glob
import re
from pathlib import Path

from rae_dit.data.files import SourceError

_SPLIT = re.compile(r"(?:^|[-_.])(train|training|validation|valid|val|test)(?=[-_.]|\d|$)")
_SHOWN = 5


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
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise SourceError(f"got {path!r}, which is a file; expected {expected}")
    parent = next(above for above in folder.absolute().parents if above.is_dir())
    raise SourceError(
        f"got {path!r}, which does not exist ({parent} holds {found_in(parent)}); "
        f"expected {expected}"
    )


def find_shards(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Finds the files of one split, sorted by name.

    Args:
        path: a file, a directory of which all files with one of the suffixes are taken, or a
            pattern such as "DIRECTORY/train-*".
        suffixes: of files to take, with the dot.

    Returns:
        At least one file; all of one suffix and of one split.

    Raises:
        SourceError: there are none, or they are of several kinds or splits.
    """
    kinds = " or ".join(f"*{suffix}" for suffix in suffixes)
    expected = f"a directory of {kinds} files, or a pattern such as 'DIRECTORY/train-*'"
    if glob.has_magic(path) and not Path(path).expanduser().exists():
        matched = [Path(name) for name in glob.glob(str(Path(path).expanduser()))]
        what = f"{path!r}, which matches {len(matched):,} files"
    elif Path(path).expanduser().is_file() and path:
        matched, what = [Path(path).expanduser()], f"the file {path!r}"
    else:
        folder = directory(path, expected)
        matched, what = list(folder.iterdir()), f"{path!r}, which holds {found_in(folder)}"
    shards = sorted(p for p in matched if p.suffix in suffixes and not p.name.startswith("."))
    if not shards:
        raise SourceError(f"got {what}; expected {expected}")
    if len({shard.suffix for shard in shards}) > 1:
        found = ", ".join(sorted({shard.suffix for shard in shards}))
        raise SourceError(f"got {what}, with {found} files; expected files of one kind")
    splits = sorted({match[1] for shard in shards if (match := _SPLIT.search(shard.name))})
    if len(splits) > 1:
        raise SourceError(
            f"got {what}, of the splits {', '.join(splits)}; expected one split; "
            f"give a pattern such as '{shards[0].parent}/{splits[-2]}*'"
        )
    return shards
