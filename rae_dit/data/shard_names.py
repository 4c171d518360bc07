"""Names of shards: split words, brace patterns, and whole sets of NAME-00000-of-00003 files.

Pure functions of names.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

# Source: datasets.data_files.SPLIT_KEYWORDS of Hugging Face `datasets`.
_SPLIT_WORDS = {
    "train": ("training", "train"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("testing", "test", "evaluation", "eval"),
}
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
_SPLIT = re.compile(rf"(?:^|[-_. \d])({'|'.join(_SPLIT_OF)})(?=[-_. \d]|$)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d+)[-_]of[-_](?P<total>\d+)", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_NAMES = 100_000


def split_of(name: str) -> str | None:
    """Returns "train", "validation" or "test" by the first word of a split in a file's name."""
    match = _SPLIT.search(name)
    return _SPLIT_OF[match[1].lower()] if match else None


def is_by_product(name: str) -> bool:
    """Tells whether a file is a result that `datasets` keeps beside a data set's own files."""
    return name.startswith("cache-") and name.endswith(".arrow")


def expand_braces(pattern: str) -> list[str]:
    """Expands {0000..0146} and {a,b} as a shell does; other braces stay.

    Raises:
        ValueError: the pattern names more than 100,000 files.
    """
    for match in _BRACES.finditer(pattern):
        numbers = _RANGE.fullmatch(match[1])
        if numbers is None and "," not in match[1]:
            continue
        choices = _numbers(*numbers.groups()) if numbers else match[1].split(",")
        before, after = pattern[: match.start()], expand_braces(pattern[match.end() :])
        if len(choices) * len(after) > _MOST_NAMES:
            raise ValueError(f"more than {_MOST_NAMES:,} files")
        return [before + choice + rest for choice in choices for rest in after]
    return [pattern]


def _numbers(first: str, last: str) -> list[str]:
    """Lists the numbers of {FIRST..LAST}, padded with zeros if either is."""
    start, stop = int(first), int(last)
    if abs(stop - start) >= _MOST_NAMES:
        raise ValueError(f"more than {_MOST_NAMES:,} files")
    is_padded = any(text != "0" and text.startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if is_padded else 1
    step = 1 if start <= stop else -1
    return [f"{number:0{width}d}" for number in range(start, stop + step, step)]


def doubled(names: Iterable[str]) -> str | None:
    """Describes shards that are there twice; None if none.

    That is by number, as sets of two sizes, or as one file ("train.tar") beside a set of the name.
    """
    names = list(names)
    whole = {name.partition(".")[0]: name for name in names if not _NUMBERED.match(name)}
    for stem, totals in _sets(names).items():
        if single := whole.get(stem.rstrip("-_.")):
            return f"of which {single!r} stands beside shards of {stem!r}"
        if len(totals) > 1:
            sizes = " and ".join(str(total) for total in sorted(totals))
            return f"of which {stem!r} are shards of sets of {sizes}"
        for total, numbers in totals.items():
            for number in numbers:
                if numbers.count(number) > 1:
                    return f"of which shard {number} of {total} of {stem!r} is there twice"
    return None


def missing(names: Iterable[str]) -> str | None:
    """Describes the first shard that is missing from its set, and how many are; None if none."""
    for stem, totals in _sets(names).items():
        for total, numbers in totals.items():
            first = 1 if 0 not in numbers and total in numbers else 0
            lost = [n for n in range(first, first + min(total, _MOST_NAMES)) if n not in {*numbers}]
            if lost:
                return (
                    f"without {len(lost)} of the {total} shards of {stem!r}, first shard {lost[0]}"
                )
    return None


def chooses_shards(pattern: str) -> bool:
    """Tells whether the file name of a pattern says which shards of a set it means."""
    file = re.sub(r"of[-_]\d+", "", pattern.rpartition("/")[2])
    return bool(re.search(r"[\d\[{?]", file))


def _sets(names: Iterable[str]) -> dict[str, dict[int, list[int]]]:
    """Groups shard numbers by the part of the name before them, then by the size of the set."""
    sets: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if match := _NUMBERED.match(name):
            sets[match["stem"]][int(match["total"])].append(int(match["number"]))
    return sets
