"""MinHash against datasketch: the same signatures, the same pairs."""

import random

import numpy as np
import pytest

from scratchbook.data.dedupe import MinHash, jaccard, near_duplicates, shingles

datasketch = pytest.importorskip("datasketch")
AGAINST = f"datasketch {datasketch.__version__} MinHash"


def theirs(ours: MinHash, hashes: np.ndarray) -> np.ndarray:
    """Their signature of the same numbers under the same shuffles."""
    other = datasketch.MinHash(
        num_perm=ours.size, scheme="affine32", hashfunc=int,
        permutations=np.array([ours.a[:, 0], ours.b[:, 0]], dtype=np.uint32))
    other.update_batch(hashes.tolist())
    return other.hashvalues


def planted(seed: int, pairs: int = 40, length: int = 300) -> list[str]:
    """Texts of made-up words, and after them a copy of each with more and more changed."""
    chosen = random.Random(seed)
    texts = [" ".join(f"w{chosen.randrange(10**6)}" for _ in range(length)) for _ in range(pairs)]
    copies = []
    for number, text in enumerate(texts):
        words = text.split()
        for place in chosen.sample(range(length), number):
            words[place] = f"new{chosen.randrange(10**6)}"
        copies.append(" ".join(words))
    return texts + copies


def test_signatures_are_equal(parity):
    gaps, cases = [], 0
    for seed in range(40):
        ours = MinHash((16, 128, 200)[seed % 3], seed)
        rng = np.random.default_rng(seed)
        hashes = rng.integers(0, 2**32, rng.integers(0, 3000), dtype=np.uint32)
        gaps.append(np.abs(ours.signature(hashes).astype(float) - theirs(ours, hashes)).max())
        cases += 1
    assert parity("MinHash signatures", against=AGAINST, error=max(gaps), cases=cases)


def test_planted_pairs_are_the_ones_that_datasketch_finds(parity):
    """Its index gives candidates; both then keep those that share 0.7 of their shingles."""
    different = cases = 0
    for seed in range(3):
        texts, threshold = planted(seed), 0.7
        ours = MinHash(128)
        index = datasketch.MinHashLSH(threshold=0.45, num_perm=128)
        found: dict[int, int] = {}
        for number, text in enumerate(texts):
            other = datasketch.MinHash(num_perm=128, scheme="affine32", hashfunc=int)
            other.update_batch(shingles(text).tolist())
            twins = [key for key in sorted(index.query(other))
                     if jaccard(shingles(text), shingles(texts[key])) >= threshold]
            if twins:
                found[number] = twins[0]
            else:
                index.insert(number, other)
        mine = near_duplicates(texts, threshold, size=ours.size)
        different += len(set(found.items()) ^ set(mine.items()))
        cases += len(texts)
        assert len(mine) > 5
    assert parity("Near-duplicate pairs", against=f"datasketch {datasketch.__version__} MinHashLSH",
                  error=different, cases=cases)


def test_estimates_are_as_good_as_theirs():
    """Root mean square error of 128 numbers, ours and theirs, over planted pairs."""
    texts = planted(9)
    errors: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in range(10):
        ours = MinHash(128, seed)
        for number in range(40):
            a, b = shingles(texts[number]), shingles(texts[number + 40])
            true = jaccard(a, b)
            errors["ours"].append((ours.signature(a) == ours.signature(b)).mean() - true)
            pair = []
            for hashes in (a, b):
                pair.append(datasketch.MinHash(num_perm=128, seed=seed + 1, hashfunc=int))
                pair[-1].update_batch(hashes.tolist())
            errors["theirs"].append(pair[0].jaccard(pair[1]) - true)
    ours, others = (np.sqrt(np.mean(np.square(e))) for e in errors.values())
    assert ours < 1.15 * others
