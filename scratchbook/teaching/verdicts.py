"""Two ways compared once: the row of a table and the sentence below come from the same verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scratchbook.evaluation.comparing import (
    BLOWN,
    Interval,
    blown,
    paired,
    verdict,
)

__all__ = ["Comparison", "comparisons"]


@dataclass(frozen=True)
class Comparison:
    """How `name` did beside `other`, run by run with the same seeds.

    `low` and `high` are the words for a lower and a higher number, `limit` the size at which a
    run counts as blown up. `str()` of it is a sentence, `row()` a row for `table`.

    Raises:   ValueError when the two do not have the same number of runs, or fewer than three
    """

    name: str
    other: str
    first: Sequence[float]
    second: Sequence[float]
    unit: str = ""
    low: str = "lower"
    high: str = "higher"
    limit: float = BLOWN

    def __post_init__(self) -> None:
        assert self.word  # refuses now what it would refuse later

    @property
    def word(self) -> str:
        """The verdict."""
        return verdict(self.first, self.second, self.low, self.high, self.limit)

    @property
    def difference(self) -> Interval | None:
        """The mean difference with its interval; None when a run blew up."""
        if blown([*self.first, *self.second], self.limit):
            return None
        return paired(self.first, self.second)

    @property
    def gap(self) -> str:
        """The difference as text, such as "+0.12 ± 0.05"; empty when a run blew up."""
        if self.difference is None:
            return ""
        half = self.difference.high - self.difference.value
        digits = min(max(1 - math.floor(math.log10(half)), 0), 4) if half > 0 else 3
        value = round(self.difference.value, digits) + 0.0  # never -0.00
        return f"{value:+.{digits}f}\u00a0±\u00a0{half:.{digits}f}"  # no line breaks inside

    def row(self) -> dict[str, str]:
        """What is compared, the difference and the verdict."""
        head = f"difference, {self.unit}" if self.unit else "difference"
        return {"compared": f"{self.name} against {self.other}", head: self.gap,
                "verdict": self.word}

    def __str__(self) -> str:
        gap = f" ({self.gap} {self.unit}".rstrip() + ")" if self.gap else ""
        return f"{self.name} against {self.other}: {self.word}{gap}"


def comparisons(runs: Mapping[str, Sequence[float]], pairs: Iterable[tuple[str, str]] = (), *,
                against: str = "", **how: object) -> list[Comparison]:
    """Compare the named pairs, or each way with the one called `against`.

    `how` goes to `Comparison`: unit, low, high, limit.
    """
    pairs = list(pairs) or [(name, against) for name in runs if name != against]
    return [Comparison(one, other, runs[one], runs[other], **how) for one, other in pairs]
