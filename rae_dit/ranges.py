"""Types of numbers with the interval they must lie in, for fields of frozen dataclasses.

The interval is metadata of the type; `config.check.convert` enforces it.
"""

import dataclasses
import math
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
    """Interval in which a number must lie; rides on a type as `Annotated[int, Range(low=1)]`."""

    low: float = -math.inf
    high: float = math.inf
    low_allowed: bool = True
    high_allowed: bool = True

    def holds(self, number: float) -> bool:
        """Tells whether `number` lies in the interval (NaN never does)."""
        above = number >= self.low if self.low_allowed else number > self.low
        below = number <= self.high if self.high_allowed else number < self.high
        return above and below

    def __str__(self) -> str:
        """Returns the interval in words: '>= 1', '> 0', 'in [0, 1)'."""
        if math.isinf(self.high):
            return f"{'>=' if self.low_allowed else '>'} {self.low:.15g}"
        opening, closing = "[" if self.low_allowed else "(", "]" if self.high_allowed else ")"
        return f"in {opening}{self.low:.15g}, {self.high:.15g}{closing}"


Count = Annotated[int, Range(low=1)]
Natural = Annotated[int, Range(low=0)]
Positive = Annotated[float, Range(low=0, low_allowed=False)]
NonNegative = Annotated[float, Range(low=0)]
Probability = Annotated[float, Range(low=0, high=1)]
Decay = Annotated[float, Range(low=0, high=1, high_allowed=False)]
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]
