"""Swaps, Holm, clusters and areas against scipy, statsmodels and scikit-learn."""

import numpy as np
import pytest

from scratchbook.interpret import clustering, head_tests


def draws(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_swaps_equal_scipys_permutations(parity) -> None:
    stats = pytest.importorskip("scipy.stats")
    gaps = draws(9, 12) + 0.3
    theirs = [stats.permutation_test((column, np.zeros(9)), lambda x, y: np.mean(x - y),
                                     permutation_type="samples", alternative="greater",
                                     n_resamples=10_000).pvalue for column in gaps.T]
    worst = np.abs(head_tests.swap_test(gaps) - theirs).max()
    assert parity("Swap test", against="scipy", error=worst, cases=12, bound=1e-12)


def test_holm_equals_statsmodels(parity) -> None:
    tests = pytest.importorskip("statsmodels.stats.multitest")
    worst = 0.0
    for seed in range(10):
        p = np.random.default_rng(seed).beta(0.4, 1, size=40).round(3)  # with ties
        worst = max(worst, np.abs(head_tests.holm(p) - tests.multipletests(p, method="holm")[1])
                    .max())
    assert parity("Holm's correction", against="statsmodels", error=worst, cases=10, bound=1e-15)


def test_clusters_equal_scikit_learns(parity) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    metrics = pytest.importorskip("sklearn.metrics")
    worst = 0.0
    for seed in range(6):
        points = draws(30, 4, seed=seed)
        labels = clustering.agglomerate(points, 5)
        theirs = cluster.AgglomerativeClustering(5, linkage="ward").fit_predict(points)
        worst = max(worst, 1 - metrics.adjusted_rand_score(labels, theirs),
                    np.abs(clustering.silhouette(points, labels)
                           - metrics.silhouette_samples(points, labels)).max())
        other = np.random.default_rng(seed).integers(4, size=30)
        worst = max(worst, abs(clustering.adjusted_rand(labels, other)
                               - metrics.adjusted_rand_score(labels, other)))
    assert parity("Ward's groups, silhouette, Rand index", against="scikit-learn", error=worst,
                  cases=18, bound=1e-12)


def test_area_equals_scikit_learns(parity) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    ours, theirs = draws(40).round(1) + 0.4, draws(30, seed=1).round(1)
    want = metrics.roc_auc_score([1] * 40 + [0] * 30, [*ours, *theirs])
    error = abs(head_tests.area_under_curve(ours, theirs) - want)
    assert parity("Area under the curve", against="scikit-learn", error=error, cases=1,
                  bound=1e-12)
