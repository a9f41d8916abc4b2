"""Which of two is better, and could it be chance? Intervals for shares, differences and ranks.

Every verdict of the book is made here, by `verdict`, `verdict_on` or `bound_verdict`.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

NO_DIFFERENCE, NOT_SETTLED, NOT_TESTED = "no clear difference", "not settled", "not tested"
BLOWN = 1e8  # a loss this large, or none at all (inf, NaN), is a run that blew up
# Student's t, two-sided 95 %, by degrees of freedom
_T95 = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class Interval(NamedTuple):
    """A measured value and where, with 95 % confidence, the true one lies."""

    value: float
    low: float
    high: float


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
            high: str = "higher", limit: float = BLOWN) -> str:
    """How `first` compares with `second`, run by run with the same seeds: low, high or neither.

    A word is only given when the 95 % interval of the paired differences leaves out zero;
    otherwise the answer is "no clear difference". A run that reaches `limit`, or is inf or NaN,
    has no difference to average: then the answer counts the runs that blew up.

    Raises:   ValueError when the two do not have the same number of runs, or fewer than three
    """
    if len(first) != len(second) or len(first) < 3:
        raise ValueError(f"{len(first)} and {len(second)} runs: give both the same seeds, "
                         "three or more")
    ours, theirs = blown(first, limit), blown(second, limit)
    if ours and theirs:
        return f"blew up in {ours} of {len(first)}, the other in {theirs} of {len(first)}"
    if ours or theirs:
        return f"{'' if ours else 'the other '}blew up in {ours or theirs} of {len(first)}"
    return verdict_on(paired(first, second), low, high)


def blown(values: Sequence[float], limit: float = BLOWN) -> int:
    """How many of the values are NaN or inf, or as large as `limit` or larger."""
    return sum(not abs(value) < limit for value in values)


def paired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of `first - second`, run by run, with its interval by Student's t: for few runs."""
    mean, half = mean_and_spread([a - b for a, b in zip(first, second, strict=True)])
    return Interval(mean, mean - half, mean + half)


def verdict_on(change: Interval, low: str = "lower", high: str = "higher") -> str:
    """A word for a difference whose interval leaves out zero; else "no clear difference"."""
    return high if change.low > 0 else low if change.high < 0 else NO_DIFFERENCE


def bound_verdict(values: Interval | Sequence[float], at_least: float = -math.inf,
                  at_most: float = math.inf) -> str:
    """Whether a stated bound, or range, was "met" or "missed" by an interval or by runs.

    An interval that holds the bound leaves it "not settled"; fewer than three runs are
    "not tested".
    """
    if not isinstance(values, Interval):
        if len(values) < 3:
            return NOT_TESTED
        if lost := blown(values):
            return f"blew up in {lost} of {len(values)}"
        values = paired(values, [0.0] * len(values))
    if at_least <= values.low and values.high <= at_most:
        return "met"
    return "missed" if values.high < at_least or values.low > at_most else NOT_SETTLED


def wilson(passed: int, total: int, z: float = 1.96) -> Interval:
    """A share with its interval, which stays within 0..1 and is honest about 0 of 10.

    Raises:   ValueError when there was no try, or more passed than were tried
    Paper:    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not 0 <= passed <= total or total < 1:
        raise ValueError(f"{passed} of {total} is no share")
    share, shrink = passed / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Interval(share, max(centre - half, 0.0), min(centre + half, 1.0))


def bootstrap(values: Sequence[float], weights: Sequence[float] | None = None,
              draws: int = 2000, seed: int = 0) -> Interval:
    """The (weighted) mean of values, its interval from redrawing them with replacement.

    Raises:   ValueError when there are no values
    Paper:    Efron (1979), https://doi.org/10.1214/aos/1176344552
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise ValueError("no values: nothing was measured")
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    chosen = np.random.default_rng(seed).integers(len(x), size=(draws, len(x)))
    means = (x * w)[chosen].sum(1) / w[chosen].sum(1)  # (draws,)
    return Interval(float((x * w).sum() / w.sum()), *map(float, np.quantile(means, (0.025, 0.975))))


def paired_bootstrap(first: Sequence[float], second: Sequence[float], draws: int = 2000,
                     seed: int = 0) -> Interval:
    """Mean of `second - first`, item by item, with its interval.

    The same items are redrawn for both: what makes an item hard for both cancels out.

    Raises:   ValueError when the two do not have the same number of items
    Paper:    Koehn (2004), https://aclanthology.org/W04-3250
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} results: pairs need the same items")
    return bootstrap([b - a for a, b in zip(first, second, strict=True)], None, draws, seed)


def paired_shares(before: Sequence[int], after: Sequence[int], z: float = 1.96) -> Interval:
    """How much larger a share of 0s and 1s is afterwards, on the same items.

    One imaginary item is added to either kind of change, so that a test in which nobody changed
    sides gets an interval with a width: redrawing equal differences never gives one.

    Raises:   ValueError when the two do not have the same number of items, or none
    Paper:    Bonett and Price (2012), https://doi.org/10.3102/1076998611411915
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} results: pairs need the same items")
    total = len(before) + 2
    won = (sum(b > a for a, b in zip(before, after, strict=True)) + 1) / total
    lost = (sum(b < a for a, b in zip(before, after, strict=True)) + 1) / total
    half = z * math.sqrt((won + lost - (won - lost) ** 2) / total)
    mean = (sum(after) - sum(before)) / len(before)
    return Interval(mean, max(-1.0, won - lost - half), min(1.0, won - lost + half))


def compare_tests(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Interval]:
    """For each test of two evaluations, how much larger the share passed is afterwards.

    Raises:   ValueError when they are not the same tests on the same prompts
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    for name in {**before, **after}:
        one, other = (tests.get(name, {}).get("prompts") for tests in (before, after))
        if one != other:
            raise ValueError(f"{name!r} is not the same test in both: before {one or 'missing'}, "
                             f"after {other or 'missing'}; evaluate both with one version")
    return {name: paired_shares(test["outcomes"], after[name]["outcomes"])
            for name, test in before.items()}


def spearman(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Correlation of ranks, ties sharing theirs; interval by Fisher's z, as Bonett and Wright do.

    Raises:   ValueError for fewer than four pairs, or a side that never changes
    Paper:    Bonett and Wright (2000), https://doi.org/10.1007/BF02294183
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"{len(x)} and {len(y)} values: four pairs or more are needed")
    ranks = [_ranks(np.asarray(side, dtype=float)) for side in (x, y)]
    if any(np.ptp(side) == 0 for side in ranks):
        raise ValueError("one side never changes: there is no correlation to speak of")
    rho = float(np.corrcoef(*ranks)[0, 1])
    z = math.atanh(max(min(rho, 1 - 1e-12), -1 + 1e-12))
    half = 1.96 * math.sqrt((1 + rho * rho / 2) / (len(x) - 3))
    return Interval(rho, math.tanh(z - half), math.tanh(z + half))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
