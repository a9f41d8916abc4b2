"""Methods that are nearly the same: found by MinHash to drop them, and exactly to audit that.

A method's shingles are all runs of six tokens, with every literal masked: `x := 3` and `x := 4`
are the same code. Methods under 20 tokens are left to exact comparison: accessors resemble each
other everywhere.

Adds:       bands of all signatures compared at once, in memory that 400,000 methods fit into
Leaves out: MinHash and Jaccard's similarity themselves: dedupe
Chapter:    chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from scratchbook.data.dedupe import MinHash, WordHashes, jaccard, rows_per_band

RUN, FEWEST = 6, 20
_TOKEN = re.compile(r"""
    "[^"]*"                                                # a comment: dropped
  | (?P<literal> '(?:[^']|'')*' | \$[\s\S] | \#[\w:]+ | \#' | -?\d\w*(?:\.\d\w*)? )
  | (?P<code> [^\W\d]\w*(?::(?!=))? | := | [-+*/\\~<>=@%|&?,!]+ | \S )""", re.X)


def method_tokens(source: str) -> list[str]:
    """The words and signs of a method without its comments; every literal is a "?"."""
    return [match["code"] or "?" for match in _TOKEN.finditer(source) if match.lastgroup]


def method_shingles(source: str, known: dict[str, int] | None = None) -> np.ndarray:
    """The set of a method's runs of six tokens, as 32-bit hashes in order.

    A method with fewer than 20 tokens has none.

    Shapes:   -> (shingles,) uint32
    """
    tokens = method_tokens(source)
    if len(tokens) < FEWEST:
        return np.zeros(0, np.uint32)
    known = WordHashes() if known is None else known
    hashes = np.fromiter(map(known.__getitem__, tokens), np.uint64, len(tokens))
    runs = np.zeros(len(tokens) - RUN + 1, np.uint64)
    for place in range(RUN):  # a polynomial in an odd number, modulo 2^64
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + len(runs)] \
            + np.uint64(1)
    runs ^= runs >> np.uint64(32)
    runs *= np.uint64(0xD6E8FEB86659FD93)
    return np.unique((runs >> np.uint64(32)).astype(np.uint32))


def similar_sets(sets: Sequence[np.ndarray], threshold: float = 0.8, size: int = 128,
                 seed: int = 0) -> dict[int, int]:
    """Which sets resemble an earlier one that is kept: {its number: the earlier one's}.

    Candidates agree in a whole band of their signatures; then the sets themselves are compared.
    Empty sets are left alone. The same rule as `near_duplicates`, for more sets than its table
    of bands has room for: only bands that two sets share are kept.

    Raises:   ValueError for a threshold outside 0..1
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} is not a share above 0 and up to 1")
    numbers = [number for number, found in enumerate(sets) if len(found)]
    shared = _shared_bands(sets, numbers, MinHash(size, seed), rows_per_band(threshold, size))
    kept: dict[int, list[int]] = defaultdict(list)
    dropped = {}
    for number, bands in zip(numbers, shared, strict=True):
        candidates = sorted({k for band in bands for k in kept.get(band, ())})
        near = (k for k in candidates if _can_reach(len(sets[k]), len(sets[number]), threshold)
                and jaccard(sets[k], sets[number]) >= threshold)
        twin = next(near, None)
        if twin is not None:
            dropped[number] = twin
            continue
        for band in bands:
            kept[band].append(number)
    return dropped


def _can_reach(one: int, other: int, threshold: float) -> bool:
    """Whether two sets of these sizes can be so similar: at best one is within the other."""
    return min(one, other) >= threshold * max(one, other)


def _shared_bands(sets: Sequence[np.ndarray], numbers: list[int], minhash: MinHash, rows: int
                  ) -> list[list[int]]:
    """For each set the bands of its signature that another set has as well, as numbers."""
    count = minhash.size // rows
    bands = np.empty((len(numbers), count), np.uint64)
    odd = np.uint64(0x9E3779B97F4A7C15)
    for line, number in enumerate(numbers):
        signature = minhash.signature(sets[number])[: count * rows].astype(np.uint64)
        bands[line] = np.arange(count, dtype=np.uint64)
        for place in signature.reshape(count, rows).T:  # (count,)
            bands[line] = (bands[line] ^ (bands[line] >> np.uint64(29))) * odd + place
    names, inverse, counts = np.unique(bands, return_inverse=True, return_counts=True)
    del names
    inverse = inverse.reshape(bands.shape)
    there = counts[inverse] > 1  # (sets, count)
    return [line[mask].tolist() for line, mask in zip(inverse, there, strict=True)]


def closest(held: Sequence[np.ndarray], training: Sequence[np.ndarray], threshold: float = 0.7
            ) -> np.ndarray:
    """The highest similarity of each held-out set to any training set; 0 where below threshold.

    Exact, unlike MinHash: two sets that similar must share one of their rarest members, of which
    it is enough to look at the first n - ceil(threshold n) + 1.

    Shapes:   -> (held,) float64
    Paper:    Chaudhuri, Ganti, Kaushik (2006), "A primitive operator for similarity joins",
              the prefix filter
    """
    every = np.concatenate([np.empty(0, np.uint32), *held, *training])
    members, counts = np.unique(every, return_counts=True)
    del every

    def rarest(found: np.ndarray) -> list[int]:
        needed = len(found) - math.ceil(threshold * len(found) - 1e-9) + 1 if len(found) else 0
        rarity = counts[np.searchsorted(members, found)]
        return found[np.lexsort((found, rarity))[:needed]].tolist()

    places: dict[int, list[int]] = defaultdict(list)
    for number, found in enumerate(held):
        for member in rarest(found):
            places[member].append(number)
    best = np.zeros(len(held))
    for found in training:
        candidates = {number for member in rarest(found) for number in places.get(member, ())}
        for number in candidates:
            if _can_reach(len(found), len(held[number]), threshold):
                best[number] = max(best[number], jaccard(held[number], found))
    best[best < threshold] = 0
    return best
