"""Heads that are alike, found without naming them first.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

import numpy as np


def distances(points: np.ndarray) -> np.ndarray:
    """How far apart every two points are.

    Shapes:   points (count, features) -> (count, count)
    Raises:   ValueError for points that are not finite
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"points of shape {points.shape} must be (count, features), and finite")
    return np.sqrt(((points[:, None] - points) ** 2).sum(-1))


def agglomerate(points: np.ndarray, clusters: int) -> np.ndarray:
    """Join the two groups that it costs least to join, until so many are left.

    The cost is how much the squared distances to the groups' means grow (Ward's): a far outlier
    does not stay alone for ever, as it does when groups are joined by their average distance.

    Shapes:   points (count, features) -> labels (count,), numbered by first appearance
    Raises:   ValueError when there are not so many points, or they are not finite
    Paper:    Ward (1963), https://doi.org/10.1080/01621459.1963.10500845
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    points, count = np.asarray(points, dtype=float), len(distances(points))
    if not 1 <= clusters <= count:
        raise ValueError(f"clusters={clusters} is not within 1..{count}, the points")
    groups = [[number] for number in range(count)]
    while len(groups) > clusters:
        sizes = np.array([len(group) for group in groups])
        means = np.stack([points[group].mean(0) for group in groups])
        cost = distances(means) ** 2 / (1 / sizes[:, None] + 1 / sizes)
        cost[np.tril_indices(len(groups))] = np.inf
        a, b = np.unravel_index(cost.argmin(), cost.shape)
        groups[a] += groups.pop(b)
    labels = np.empty(count, dtype=int)
    for number, group in enumerate(sorted(groups, key=min)):
        labels[group] = number
    return labels


def silhouette(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much nearer each point is to its own group than to the next one, from -1 to 1.

    A point alone in its group has 0.

    Shapes:   points (count, features), labels (count,) -> (count,)
    Raises:   ValueError for fewer than two groups
    Paper:    Rousseeuw (1987), https://doi.org/10.1016/0377-0427(87)90125-7
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    apart, labels = distances(points), np.asarray(labels)
    names = np.unique(labels)
    if len(names) < 2:
        raise ValueError("one group has no other to be compared with")
    sums = np.stack([apart[:, labels == name].sum(1) for name in names], 1)  # (count, groups)
    sizes = np.array([(labels == name).sum() for name in names])
    own = labels[:, None] == names
    inside = sums[own] / np.maximum(sizes[own.argmax(1)] - 1, 1)
    outside = np.where(own, np.inf, sums / sizes).min(1)
    larger = np.maximum(inside, outside)
    apartness = np.divide(outside - inside, larger, out=np.zeros(len(labels)), where=larger > 0)
    return np.where(sizes[own.argmax(1)] == 1, 0.0, apartness)


def best_clusters(points: np.ndarray, most: int = 10, fewest: int = 2
                  ) -> tuple[np.ndarray, float]:
    """Labels for the number of groups whose mean silhouette is highest, and that mean.

    Raises:   ValueError when there are not more points than the fewest groups, or fewer than two
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    if not 2 <= fewest <= most or len(points) <= fewest:
        raise ValueError(f"fewest={fewest} and most={most} groups of {len(points)} points: there "
                         "must be more points, and two groups or more")
    tried = [agglomerate(points, k) for k in range(fewest, min(most, len(points) - 1) + 1)]
    values = [float(silhouette(points, labels).mean()) for labels in tried]
    return tried[int(np.argmax(values))], max(values)


def adjusted_rand(first: np.ndarray, second: np.ndarray) -> float:
    """How far two groupings agree: 1 when they are the same, about 0 by chance.

    Raises:   ValueError when they are not about the same points
    Paper:    Hubert and Arabie (1985), https://doi.org/10.1007/BF01908075
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{first.shape} and {second.shape} labels: both must name the same points")
    table = np.array([[((first == a) & (second == b)).sum() for b in np.unique(second)]
                      for a in np.unique(first)])

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, ours, theirs = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = ours * theirs / max(pairs(np.array([first.size])), 1)
    most = (ours + theirs) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
