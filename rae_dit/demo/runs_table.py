"""Table of runs, as text."""

from collections.abc import Sequence

from rae_dit.demo.runs import Row

HEADERS = [
    "run",
    "objective",
    "step",
    "state",
    "loss",
    "validation",
    "FID or Frechet",
    "images/s",
    "last",
]


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the table as text."""
    return [
        [
            row.name,
            row.objective,
            "–" if row.step is None else f"{row.step:,}" + limit_of(row),
            row.state,
            *(number(value) for value in (row.loss, row.validation, row.score)),
            "–" if row.speed is None else f"{row.speed:,.0f}",
            "–" if row.age is None else ago(row.age),
        ]
        for row in rows
    ]


def limit_of(row: Row) -> str:
    """Returns ' of N' behind the step."""
    return "" if row.max_steps is None else f" of {row.max_steps:,}"


def number(value: float | None) -> str:
    """Formats a metric."""
    return "–" if value is None else f"{value:.4g}"


def ago(seconds: float) -> str:
    """Formats an age: '12 s', '3 min', '5 h', '2 d'."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
