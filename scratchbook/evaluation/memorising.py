"""How much of a text was copied? The longest stretch of it that the training text has, exactly.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scratchbook.evaluation.counting import FACTOR

SLOTS = 22  # bits of a hash that a first look compares


class Stretch(NamedTuple):
    """A stretch of a text: where it starts, and how many tokens it has."""

    start: int
    length: int


def longest_overlaps(texts: Sequence[Sequence[int]], training: Sequence[int] | np.ndarray
                     ) -> list[Stretch]:
    """The longest run of tokens of each text that the training ids hold, of equal ones the first.

    One length after the other: only what matched so far can match one token further, so that the
    places that are still compared soon become few. Runs are compared by hashes of 64 bits.

    Shapes:   texts of ids, training (tokens,)
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    own = np.fromiter((token for text in texts for token in text), np.int64)
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    begins = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(texts)), sizes)
    found = [Stretch(0, 0) for _ in texts]
    ours, theirs = _Runs(own, (begins + sizes)[owner]), _Runs(np.asarray(training), None)
    for length in range(1, int(sizes.max(initial=0)) + 1):
        ours.extend(length)
        theirs.extend(length)
        keys = np.sort(ours.hashes)
        theirs.keep(_within(theirs.hashes, keys))
        ours.keep(_within(ours.hashes, np.unique(theirs.hashes)))
        if not len(ours.places):
            break
        texts_left, first = np.unique(owner[ours.places], return_index=True)
        for text, place in zip(texts_left.tolist(), ours.places[first].tolist(), strict=True):
            found[text] = Stretch(place - int(begins[text]), length)
    return found


class _Runs:
    """Where runs of one length begin, and their hashes; none reaches beyond its text's end."""

    def __init__(self, ids: np.ndarray, ends: np.ndarray | None) -> None:
        self.ids, self.ends = ids, ends
        self.places = np.arange(len(ids), dtype=np.int32)
        self.hashes = np.zeros(len(ids), np.uint64)

    def extend(self, length: int) -> None:
        """Make every run one token longer, and drop those that cannot be."""
        ends = len(self.ids) if self.ends is None else self.ends[self.places]
        self.keep(self.places + length <= ends)
        last = self.ids[self.places + (length - 1)].astype(np.uint64) + np.uint64(1)
        self.hashes = (self.hashes + last) * FACTOR
        self.hashes ^= self.hashes >> np.uint64(29)

    def keep(self, mask: np.ndarray) -> None:
        self.places, self.hashes = self.places[mask], self.hashes[mask]


def _within(hashes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of the hashes are among the sorted keys; a table rules most of them out first."""
    table = np.zeros(1 << SLOTS, bool)
    shift = np.uint64(64 - SLOTS)
    table[keys >> shift] = True
    there = table[hashes >> shift]
    maybe = hashes[there]
    at = np.minimum(np.searchsorted(keys, maybe), max(len(keys) - 1, 0))
    there[there] = (keys[at] == maybe) if len(keys) else False
    return there
