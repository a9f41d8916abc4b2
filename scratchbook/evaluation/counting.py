"""What counting alone can do with the same tokens: the rivals that a trained model has to beat.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

FACTOR = np.uint64(0x9E3779B97F4A7C15)  # an odd number: 2^64 over the golden ratio


def _hashes(ids: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of the `length` ids that end before each place; places too early have 0."""
    found = np.zeros(len(ids) + 1, dtype=np.uint64)
    for back in range(length, 0, -1):
        shifted = np.zeros_like(found)
        if back <= len(ids):
            shifted[back:] = ids[: len(ids) + 1 - back].astype(np.uint64) + np.uint64(1)
        found = (found + shifted) * FACTOR
        found ^= found >> np.uint64(29)
    return found


def _hash_of(context: Sequence[int]) -> np.uint64:
    """The hash of one context, as `_hashes` has it."""
    return _hashes(np.asarray(context, dtype=np.int64), len(context))[len(context)]


class KneserNey:
    """Interpolated modified Kneser-Ney over token ids, with three discounts for each order.

    The highest order counts how often, the lower ones in how many contexts, so that a token which
    only ever follows one other is not thought likely elsewhere. Sorted arrays instead of
    dictionaries: 20 million tokens take minutes and a few gigabytes.

    Shapes:   probs(context) -> (vocab,), which sums to 1
    Raises:   ValueError for an order below 1, or fewer ids than the order
    Paper:    Chen and Goodman (1998), TR-10-98, section 4.1
    Chapter:  chapters/09_smalltalk_model.ipynb
    """

    def __init__(self, ids: Sequence[int] | np.ndarray, vocab_size: int, order: int = 5) -> None:
        ids = np.asarray(ids, dtype=np.int64)
        if order < 1 or len(ids) < order:
            raise ValueError(f"order={order} must be at least 1 and at most the {len(ids)} ids")
        self.order, self.vocab_size, self.levels = order, vocab_size, []
        places = np.arange(order - 1, len(ids))  # the last token of every n-gram
        for length in range(order - 1, -1, -1):  # of the context
            contexts = _hashes(ids, length)[places]
            grams = (contexts * FACTOR) ^ (ids[places].astype(np.uint64) + np.uint64(1))
            _, first, counts = np.unique(grams, return_index=True, return_counts=True)
            places = places[first]
            self.levels.append(_Level(contexts[first], ids[places], counts))

    def probs(self, context: Sequence[int]) -> np.ndarray:
        """The probability of every token behind a context, of which the last order - 1 count."""
        found = np.full(self.vocab_size, 1 / self.vocab_size)
        for length, level in enumerate(reversed(self.levels)):
            if length > len(context):
                break
            found = level.blend(context[len(context) - length:], found)
        return found


class _Level:
    """The n-grams of one order, sorted by context: what follows each, and how often."""

    def __init__(self, contexts: np.ndarray, following: np.ndarray,
                 counts: np.ndarray) -> None:
        order = np.argsort(contexts, kind="stable")
        self.contexts, self.following = contexts[order], following[order]
        self.counts = counts[order]
        self.discounts = np.array([0.0, *_discounts(counts)])

    def blend(self, context: Sequence[int], lower: np.ndarray) -> np.ndarray:
        """Discounted counts behind a context, the rest shared out as the lower order says."""
        key = _hash_of(context)
        begin, stop = np.searchsorted(self.contexts, [key, key + np.uint64(1)])
        if begin == stop:
            return lower
        counts = self.counts[begin:stop]
        taken = self.discounts[np.minimum(counts, 3)]
        found = lower * taken.sum() / counts.sum()
        found[self.following[begin:stop]] += (counts - taken) / counts.sum()
        return found


def _discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """What is taken from n-grams seen once, twice, more often (Chen and Goodman's estimate)."""
    once, twice, thrice, four = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if not (once and twice and thrice and four):
        return 0.5, 0.75, 0.9  # too little text to estimate them
    share = once / (once + 2 * twice)
    found = (1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice,
             3 - 4 * share * four / thrice)
    return tuple(min(max(each, 0.05), times) for each, times  # type: ignore[return-value]
                 in zip(found, (0.95, 1.95, 2.95), strict=True))


class Retrieval:
    """Copies what followed the longest stretch of the prompt that the training text holds.

    Of several places with an equally long match the last one is taken.

    Raises:   ValueError for no lengths, or lengths below 1
    Chapter:  chapters/09_smalltalk_model.ipynb
    """

    def __init__(self, ids: Sequence[int] | np.ndarray,
                 lengths: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)) -> None:
        if not lengths or min(lengths) < 1:
            raise ValueError(f"lengths={tuple(lengths)} must be at least one number from 1 up")
        self.ids = np.asarray(ids, dtype=np.int64)
        self.tables = {}
        for length in sorted(lengths, reverse=True):
            hashes = _hashes(self.ids, length)[length:len(self.ids)]
            order = np.argsort(hashes, kind="stable")
            self.tables[length] = hashes[order], order + length

    def find(self, context: Sequence[int]) -> tuple[int, int]:
        """Where the copy begins in the training text, and how many tokens matched (0: nowhere)."""
        for length, (hashes, places) in self.tables.items():
            if length > len(context):
                continue
            key = _hash_of(context[len(context) - length:])
            stop = np.searchsorted(hashes, key, side="right")
            if stop and hashes[stop - 1] == key:
                return int(places[stop - 1]), length
        return 0, 0

    def copy_after(self, context: Sequence[int], max_new_tokens: int,
                   fits: Callable[[list[int]], bool] | None = None, most: int = 50) -> list[int]:
        """The tokens behind the best match; none when nothing matches.

        With `fits`, those behind the best match whose copy it accepts, of the last `most` places
        of each length.
        """
        if fits is None:
            place, matched = self.find(context)
            return self.ids[place:place + max_new_tokens].tolist() if matched else []
        for length, (hashes, places) in self.tables.items():
            if length <= len(context):
                key = _hash_of(context[len(context) - length:])
                begin, stop = (int(np.searchsorted(hashes, key, side=side))
                               for side in ("left", "right"))
                for place in places[max(begin, stop - most):stop][::-1].tolist():
                    copied = self.ids[place:place + max_new_tokens].tolist()
                    if fits(copied):
                        return copied
        return []
