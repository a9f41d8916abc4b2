"""Removing texts that are there twice: word for word, or nearly.

Two texts are compared by their *shingles*, all runs of five words: Jaccard's similarity is the
share that they have in common. MinHash estimates it from 128 numbers for each text, and bands of
these numbers find the pairs worth comparing without comparing all.

Paper:    Broder (1997), "On the resemblance and containment of documents"
Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from scratchbook.data.documents import Document

_WORD = re.compile(r"\w+")
_LARGEST = np.uint32(0xFFFFFFFF)


class WordHashes(dict):
    """The hash of each word, computed when it is first met."""

    def __missing__(self, word: str) -> int:
        self[word] = value = crc32(word.encode("utf-8", "surrogatepass"))
        return value


def run_hashes(text: str, words: int, known: dict[str, int] | None = None) -> np.ndarray:
    """A 64-bit hash of every run of `words` words; case and punctuation do not count.

    A text with fewer words is one run, all of it; one without any word has none.

    Shapes:   -> (runs,) uint64
    """
    known = WordHashes() if known is None else known
    found = _WORD.findall(text.lower())
    hashes = np.fromiter(map(known.__getitem__, found), np.uint64, len(found))
    words = min(words, len(found))
    runs = np.zeros(len(found) - words + 1 if found else 0, np.uint64)
    for place in range(words):  # a polynomial in an odd number, modulo 2^64
        runs *= np.uint64(0x9E3779B97F4A7C15)
        runs += hashes[place : place + len(runs)] + np.uint64(1)
    runs ^= runs >> np.uint64(32)  # the last word has reached the lower half alone
    runs *= np.uint64(0xD6E8FEB86659FD93)
    return runs ^ (runs >> np.uint64(32))


def shingles(text: str, words: int = 5, known: dict[str, int] | None = None) -> np.ndarray:
    """The set of a text's runs of words, as 32-bit hashes in order.

    Shapes:   -> (shingles,) uint32
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    return np.unique((run_hashes(text, words, known) >> np.uint64(32)).astype(np.uint32))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """The share of two sets that is in both; two empty sets are equal."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - both
    return both / either if either else 1.0


class MinHash:
    """Turns a set into `size` numbers; two sets agree in as many of them as they are similar.

    Each number is the smallest hash under one shuffle of all 32-bit numbers. The shuffle is
    a x + b modulo 2^32 with an odd a, after a mixing that makes neighbours strangers.

    Paper:    Broder (1997); the mixing is the last step of MurmurHash3
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    def __init__(self, size: int = 128, seed: int = 0):
        draws = np.random.default_rng(seed).integers(0, 2**32, (2, size, 1), dtype=np.uint32)
        self.size, self.a, self.b = size, draws[0] | np.uint32(1), draws[1]

    def signature(self, hashes: np.ndarray) -> np.ndarray:
        """Shapes:   hashes (shingles,) uint32 -> (size,) uint32"""
        x, smallest = mixed(hashes), np.full(self.size, _LARGEST)
        for start in range(0, len(x), 1024):  # a block that fits into the processor's cache
            moved = self.a * x[start : start + 1024]
            moved += self.b  # (size, 1024)
            np.minimum(smallest, moved.min(axis=1), out=smallest)
        return smallest


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Each 32-bit number at another place, reversibly, so that neighbours become strangers.

    Shapes:   hashes (shingles,) uint32 -> the same
    """
    x = hashes ^ (hashes >> np.uint32(16))
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def rows_per_band(threshold: float, size: int) -> int:
    """The longest band that still brings 99 of 100 pairs at the threshold together.

    A band of r numbers agrees with probability s^r; one of size/r bands is enough.
    """
    fits = [rows for rows in range(1, size + 1)
            if 1 - (1 - threshold**rows) ** (size // rows) >= 0.99]
    return max(fits, default=1)


def near_duplicates(texts: Sequence[str], threshold: float = 0.7, words: int = 5,
                    size: int = 128, seed: int = 0) -> dict[int, int]:
    """Which texts resemble an earlier one that is kept: {its number: the earlier one's}.

    Candidates agree in a whole band of their signatures; then the sets themselves are compared.
    Texts without a word are left alone.

    Raises:   ValueError for a threshold outside 0..1
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} is not a share above 0 and up to 1")
    minhash, rows, known = MinHash(size, seed), rows_per_band(threshold, size), WordHashes()
    sets, dropped = {}, {}
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        found = shingles(text, words, known)
        if not len(found):
            continue
        signature = minhash.signature(found)
        bands = [(start, signature[start : start + rows].tobytes())
                 for start in range(0, size - rows + 1, rows)]
        candidates = sorted({kept for band in bands for kept in buckets.get(band, ())})
        twin = next((k for k in candidates if jaccard(found, sets[k]) >= threshold), None)
        if twin is not None:
            dropped[number] = twin
            continue
        sets[number] = found
        for band in bands:
            buckets[band].append(number)
    return dropped


def deduplicate(documents: Sequence[Document], threshold: float = 0.7
                ) -> tuple[list[Document], dict[str, str], dict[str, str]]:
    """Keep the first of equal documents, then the first of similar ones.

    Returns what is kept, and which names went for the sake of which: equal, then similar.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    first: dict[str, Document] = {}
    equal = {}
    for document in documents:
        if (kept := first.setdefault(document.text.strip(), document)) is not document:
            equal[document.name] = kept.name
    unique = list(first.values())
    twins = near_duplicates([document.text for document in unique], threshold)
    similar = {unique[number].name: unique[kept].name for number, kept in twins.items()}
    return [d for n, d in enumerate(unique) if n not in twins], equal, similar
