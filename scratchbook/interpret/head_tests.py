"""Could a score be chance? Labels swapped text by text, and many tests corrected together.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EXACT_UP_TO = 14  # texts: 2 ** 14 patterns of swaps are all tried
AT_A_TIME = 4096  # patterns


def swap_test(differences: np.ndarray, draws: int = 19_999, seed: int = 0) -> np.ndarray:
    """P-values of "the targets get no more than the rivals", one for each column.

    If targets and rivals are alike, swapping their labels in a text turns the sign of its
    difference and changes nothing else. All patterns of swaps are tried where there are few
    texts, else `draws` random ones, and then the pattern that was seen counts among them: the
    +1 without which a p-value could be 0. A text is the unit, as its positions are not
    independent; a text whose difference is NaN says nothing, for that column.

    Shapes:   differences (texts, heads) -> (heads,)
    Raises:   ValueError without texts, or for less than one draw
    Paper:    Phipson and Smyth (2010), https://doi.org/10.2202/1544-6115.1585
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    seen = np.asarray(differences, dtype=float)
    if seen.ndim != 2 or not len(seen) or draws < 1:
        raise ValueError(f"differences of shape {seen.shape} and draws={draws}: give (texts, "
                         "heads) with at least one text, and at least one draw")
    known = ~np.isnan(seen)
    seen = np.where(known, seen, 0.0)
    total = seen.sum(0)
    exact = len(seen) <= EXACT_UP_TO
    least = total - 1e-12 * np.abs(seen).sum(0)  # equal sums count, whatever their last digit
    hits, tried = np.zeros(seen.shape[1]), 0
    for signs in _patterns(len(seen), draws, seed, exact):
        hits += (signs @ seen >= least).sum(0)
        tried += len(signs)
    found = hits / tried if exact else (hits + 1) / (tried + 1)
    return np.where(known.any(0), found, 1.0)


def _patterns(texts: int, draws: int, seed: int, exact: bool):
    """Rows of +1 and -1: every pattern, or random ones, in parts that fit into memory."""
    if exact:
        numbers = np.arange(2**texts)
        yield 1.0 - 2.0 * (numbers[:, None] >> np.arange(texts) & 1)
        return
    draw = np.random.default_rng(seed)
    for start in range(0, draws, AT_A_TIME):
        yield draw.choice((-1.0, 1.0), size=(min(AT_A_TIME, draws - start), texts))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values corrected for how many there are: reject those at or below the level.

    The smallest is multiplied by their number m, the next by m - 1 and so on; none falls below
    one before it. The chance that any true null is rejected stays at or below the level, however
    the tests depend on each other.

    Shapes:   any shape -> the same
    Raises:   ValueError for no p-values, or one outside 0..1
    Paper:    Holm (1979), https://www.jstor.org/stable/4615733
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    p = np.asarray(p_values, dtype=float)
    flat = p.ravel()
    if not flat.size or not ((flat >= 0) & (flat <= 1)).all():
        raise ValueError(f"p-values must be numbers within 0..1, and one at least; got {p}")
    order = flat.argsort(kind="stable")
    steps = flat[order] * np.arange(flat.size, 0, -1)
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.reshape(p.shape)


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a positive case has the higher value; ties count half. 0.5 is chance.

    Raises:   ValueError when a side is empty or holds NaN
    Paper:    Hanley and McNeil (1982), https://doi.org/10.1148/radiology.143.1.7063747
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    ours, theirs = (np.asarray(side, dtype=float) for side in (positive, negative))
    if not ours.size or not theirs.size or np.isnan(ours).any() or np.isnan(theirs).any():
        raise ValueError(f"{ours.size} positive and {theirs.size} negative values: both sides "
                         "need one at least, and no NaN")
    gaps = ours[:, None] - theirs
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def area_interval(positive: Sequence[float], negative: Sequence[float], draws: int = 1000,
                  seed: int = 0) -> tuple[float, float, float]:
    """The area and its 95 % interval, for pairs: each text once damaged and once whole.

    Texts are redrawn, both halves of a pair together.

    Raises:   ValueError when the sides are not pairs, and as `area_under_curve` does
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    ours, theirs = (np.asarray(side, dtype=float) for side in (positive, negative))
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values: give one pair for each text")
    value = area_under_curve(ours, theirs)
    draw = np.random.default_rng(seed)
    areas = [area_under_curve(ours[chosen], theirs[chosen])
             for chosen in draw.integers(len(ours), size=(draws, len(ours)))]
    low, high = np.quantile(areas, (0.025, 0.975))
    return value, float(low), float(high)
