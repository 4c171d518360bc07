"""Files with the names of all classes: the forms in which people have ImageNet's thousand.

Whatever the form, a name comes out as "tench, Tinca tinca" or "n01440764 tench, Tinca tinca":
synonyms separated by commas, perhaps behind a WordNet id.
"""

import ast
import json
import re
from pathlib import Path

from rae_dit.data.files import SourceError
from rae_dit.storage.places import place

_EXPECTED = (
    "a text file with one class name a line (perhaps behind its WordNet id), or a list or "
    "dictionary of them as JSON or Python"
)
_ID = re.compile(r"(n\d{8})(?:[\s,:]+(.+))?")
_DEVKIT = re.compile(r"n\d{8}\s+\d+\s+\S+")
_NUMBERED = re.compile(r"(\d+)\s*[:,\t ]\s*(\D.*)")
_LARGEST = 1 << 24  # bytes; the names of 21,841 classes take one megabyte
_LONGEST = 1000  # characters


def read_lines(path: str | Path) -> tuple[str, ...]:
    """Reads the non-empty lines of a UTF-8 text file, stripped.

    Raises:
        SourceError: there is no such file, it is no text, or it holds no name.
    """
    lines = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    if not lines:
        raise SourceError(f"got {str(path)!r}, which holds no name; expected {_EXPECTED}")
    if longest := max((line for line in lines if len(line) > _LONGEST), key=len, default=""):
        raise SourceError(
            f"got {str(path)!r}, where a line of {len(longest):,} characters begins with "
            f"{longest[:20]!r}; expected {_EXPECTED}"
        )
    return lines


def read_names(path: str | Path) -> tuple[str, ...]:
    """Reads the names of all classes in the order of the labels.

    Understood are: a name a line; Kaggle's LOC_synset_mapping.txt and caffe's synset_words.txt
    ("n01440764 tench, Tinca tinca"); lines numbered from 0 ("0: tench"); the devkit's
    map_clsloc.txt ("n02119789 1 kit_fox"), whose numbers are no labels, sorted by its ids as the
    labels are; a list, {label: name}, {label: [id, name]} or {name: label} as JSON or Python.

    Args:
        path: of the file.

    Returns:
        A name for each label.

    Raises:
        SourceError: the file is of another form, or its labels are not 0, 1, 2, ...; says what
            was seen.
    """
    text = _text(path).strip()
    if text[:1] in ("{", "["):
        return _from_literal(path, text)
    lines = read_lines(path)
    if all(map(_DEVKIT.fullmatch, lines)):
        by_id = sorted((line.split()[0], line.split()[2]) for line in lines)
        return tuple(f"{number} {name.replace('_', ' ')}" for number, name in by_id)
    ids = [match[1] for line in lines if (match := _ID.fullmatch(line))]
    if len(ids) == len(lines) and ids != sorted(ids):
        place = next(i for i in range(1, len(ids)) if ids[i - 1] > ids[i])
        raise SourceError(
            f"got {str(path)!r}, where {ids[place - 1]} stands before {ids[place]}; expected the "
            "WordNet ids in sorted order, which is that of the labels; sort the lines, or take "
            "the ids off if their order is right"
        )
    return _without_numbers(path, lines)


def split_id(name: str) -> tuple[str, str]:
    """Splits a name into its WordNet id, '' if it has none, and the rest."""
    match = _ID.fullmatch(name)
    return (match[1], match[2] or "") if match else ("", name)


def short_name(name: str) -> str:
    """Returns the first synonym of a name, for figures; its WordNet id if it has nothing else."""
    number, rest = split_id(name)
    return rest.partition(",")[0].strip() or number or name


def _text(path: str | Path) -> str:
    """Reads a text file of moderate size."""
    file = place(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise SourceError(
                f"got {str(path)!r} of {file.stat().st_size:,} bytes; expected {_EXPECTED}"
            )
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SourceError(f"got {str(path)!r} ({reason}); expected {_EXPECTED}") from error


def _without_numbers(path: str | Path, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Takes the numbers off lines that are all numbered.

    Raises:
        SourceError: they are numbered, but not 0, 1, 2, ...; or all but the first are numbered or
            have WordNet ids, which makes that one a header.
    """
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    if len(numbered) < len(lines):
        first, *rest = lines
        for form in (_NUMBERED, _ID):
            if rest and all(map(form.fullmatch, rest)) and not form.fullmatch(first):
                raise SourceError(
                    f"got {str(path)!r}, whose first line {first!r} is unlike all others; expected "
                    "the classes alone; take the header off"
                )
        return lines
    for label, match in enumerate(numbered):
        if int(match[1]) != label:
            raise SourceError(
                f"got {str(path)!r}, whose line {label + 1} is {match[0]!r}; expected the lines in "
                "the order of the labels, numbered from 0 or not at all"
            )
    return tuple(match[2].strip() for match in numbered)


def _from_literal(path: str | Path, text: str) -> tuple[str, ...]:
    """Reads a list or a dictionary, written as JSON or as Python."""
    try:
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise SourceError(
            f"got {str(path)!r}, which begins with {text[:20]!r} and is neither JSON nor a Python "
            f"list or dictionary; expected {_EXPECTED}"
        ) from error
    if isinstance(found, dict):
        found = _by_label(path, found)
    if not isinstance(found, list | tuple) or not found:
        seen = f"a {type(found).__name__}" if found else f"an empty {type(found).__name__}"
        raise SourceError(f"got {str(path)!r}, which holds {seen}; expected {_EXPECTED}")
    return tuple(_name(path, label, entry) for label, entry in enumerate(found))


def _by_label(path: str | Path, entries: dict[object, object]) -> list[object]:
    """Sorts {label: name} or {name: label} by the labels.

    Raises:
        SourceError: the labels are not 0, 1, 2, ...
    """
    labels = [_label(key) for key in entries]
    names = list(entries.values())
    if None in labels:
        labels, names = [_label(value) for value in entries.values()], list(entries)
    numbers = [label for label in labels if label is not None]
    if sorted(numbers) != list(range(len(entries))):
        first = next(iter(entries.items()), None)
        raise SourceError(
            f"got {str(path)!r}, a dictionary of {len(entries)} entries that begins with "
            f"{str(first)[:80]}; expected labels 0 to {max(len(entries) - 1, 0)}, each with a name"
        )
    return [name for _, name in sorted(zip(numbers, names, strict=True), key=lambda pair: pair[0])]


def _label(entry: object) -> int | None:
    """Returns an integer, written as a number or as digits; else None."""
    if isinstance(entry, int) and not isinstance(entry, bool):
        return entry
    if isinstance(entry, str) and entry.isascii() and entry.isdecimal() and len(entry) < 10:
        return int(entry)
    return None


def _name(path: str | Path, label: int, entry: object) -> str:
    """Returns a name, or the synonyms in a list, with the id first if there is one."""
    parts = [entry] if isinstance(entry, str) else entry
    if not isinstance(parts, list | tuple) or not parts or not all(_is_name(p) for p in parts):
        raise SourceError(
            f"got {str(path)!r}, where label {label} is {str(entry)[:80]!r}; expected a name or a "
            "list of names"
        )
    number, rest = split_id(str(parts[0]))
    names = ", ".join([*([rest] if rest else []), *parts[1:]]).replace("_", " ").strip()
    return f"{number} {names}".strip()


def _is_name(part: object) -> bool:
    return isinstance(part, str) and bool(part.strip()) and len(part) <= _LONGEST
