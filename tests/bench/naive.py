"""Byte-pair encoding as one would first write it: nothing is remembered from merge to merge."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise


def count_pairs(chunks: list[list[int]]) -> Counter[tuple[int, int]]:
    return Counter(chain.from_iterable(map(pairwise, chunks)))


def merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    merged, at = [], 0
    while at < len(ids):
        if at + 1 < len(ids) and (ids[at], ids[at + 1]) == pair:
            merged.append(new)
            at += 2
        else:
            merged.append(ids[at])
            at += 1
    return merged


def train(chunks: list[list[int]], num_merges: int, first_id: int) -> list[tuple[int, int]]:
    """Merge `num_merges` times the most frequent pair; among equals, the one of smallest ids."""
    merges = []
    for new in range(first_id, first_id + num_merges):
        counts = count_pairs(chunks)
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        chunks = [merge(ids, best, new) for ids in chunks]
        merges.append(best)
    return merges


def encode(chunks: list[list[int]], merges: dict[tuple[int, int], int]) -> list[int]:
    """Apply to each chunk the merges it allows, the one learned first before all others."""
    encoded = []
    for ids in chunks:
        while len(ids) > 1:
            first = min(pairwise(ids), key=lambda pair: merges.get(pair, len(merges) + 256))
            if first not in merges:
                break
            ids = merge(ids, first, merges[first])
        encoded += ids
    return encoded
