"""Which of two is better, and could it be chance? Intervals for shares, differences and ranks.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A measured value and where, with 95 % confidence, the true one lies."""

    value: float
    low: float
    high: float


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
    return {name: paired_bootstrap(test["outcomes"], after[name]["outcomes"])
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
