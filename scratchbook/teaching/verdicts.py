"""Sentences about which of two is better, written by the numbers and not by hope."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Student's t, two-sided 95 %, by degrees of freedom
_T95 = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the half-width of its 95 % interval (Student's t); one value has none: nan."""
    if not values:
        raise ValueError("no values: nothing was measured")
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    quantile = _T95[len(values) - 1] if len(values) <= len(_T95) else 2.228
    return mean, quantile * math.sqrt(variance / len(values))


def verdict(first: Sequence[float], second: Sequence[float], low: str = "lower",
            high: str = "higher") -> str:
    """How `first` compares with `second`, run by run with the same seeds: low, high or neither.

    A word is only given when the 95 % interval of the paired differences leaves out zero;
    otherwise the answer is "no clear difference".

    Raises:   ValueError when the two do not have the same number of runs, or fewer than three
    """
    if len(first) != len(second) or len(first) < 3:
        raise ValueError(f"{len(first)} and {len(second)} runs: give both the same seeds, "
                         "three or more")
    mean, half = mean_and_spread([a - b for a, b in zip(first, second, strict=True)])
    if abs(mean) <= half:
        return "no clear difference"
    return low if mean < 0 else high
