"""Learning the merges of byte-pair encoding: again and again, fuse the most frequent pair.

The textbook trainer counts every pair anew after each merge. This one counts once and afterwards
touches only the places where something changes, as the Rust library `tokenizers` does, whose
merges it reproduces exactly.

All distinct chunks lie end to end in one array of *cuts*. A chunk of n bytes has n + 1 cuts, the
two outer ones included, and every cut knows the token on its left and the token on its right:

    chunk     l   o   w        cut      0   1   2   3
    cuts    0   1   2   3      left_of  -   l   o   w
                               right_of l   o   w   -

A pair is a cut, and merging the pair takes the cut away. A token knows its length, so the
neighbouring cuts are found by arithmetic: there is no linked list and nothing is moved.

Tie rule: among pairs equally frequent, the one with the smaller left id, then the smaller right id.

Paper:    Sennrich et al. (2016), arXiv:1508.07909, section 3.2; Gage (1994)
Chapter:  chapters/01_tokenization.ipynb
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import chain, repeat

# The order in which GPT-2 numbered the bytes, and OpenAI's vocabularies and the Rust library's
# ever since: first the 188 that Latin-1 can print, then the others. Ids 0 to 255 follow it.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_ORDER = bytes(PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE])

NO_TOKEN = BYTE_ORDER.index(0xFF)  # this byte stands nowhere in UTF-8: it marks the ends of chunks


def byte_ranks() -> dict[bytes, int]:
    """The vocabulary that every byte-level BPE starts from: 256 tokens of one byte."""
    return {bytes([byte]): token_id for token_id, byte in enumerate(BYTE_ORDER)}


class Cuts:
    """The tokens of all chunks, seen from the cuts between them."""

    def __init__(self, chunk_counts: Mapping[bytes, int]) -> None:
        to_ids = bytes(BYTE_ORDER.index(byte) for byte in range(256))
        laid_out = b"\xff".join([b"", *chunk_counts, b""]).translate(to_ids)
        self.right_of = list(laid_out[1:])
        self.left_of = list(laid_out[:-1])
        self.lengths = [1] * 256  # of each token, in bytes
        # of each cut: how often its chunk occurs in the corpus
        self.weights = list(
            chain.from_iterable(
                repeat(count, len(chunk) + 1) for chunk, count in chunk_counts.items()
            )
        )

    def pairs(self) -> dict[tuple[int, int], list[int]]:
        """Every pair of neighbours, with its cuts from left to right."""
        cuts_of = defaultdict(list)
        for cut, pair in enumerate(zip(self.left_of, self.right_of, strict=True)):
            cuts_of[pair].append(cut)
        return {pair: cuts for pair, cuts in cuts_of.items() if NO_TOKEN not in pair}

    def weight(self, cuts: list[int]) -> int:
        """How often these cuts occur in the corpus."""
        return sum(map(self.weights.__getitem__, cuts))

    def merge(
        self, pair: tuple[int, int], new: int, cuts: list[int]
    ) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Take away those of `cuts` that still part `pair`, and put the token `new` there.

        Cuts come from left to right, so that in `aaa` the first two are fused. A cut that is gone
        keeps the pair that it parted: no later pair is the same, so it needs no mark. Returns the
        cuts before the new tokens by the token on their left, and those after by that on their
        right.
        """
        left, right = pair
        left_length, right_length = self.lengths[left], self.lengths[right]
        self.lengths.append(left_length + right_length)  # of `new`
        left_of, right_of = self.left_of, self.right_of
        before: defaultdict[int, list[int]] = defaultdict(list)
        after: defaultdict[int, list[int]] = defaultdict(list)
        for cut in cuts:
            if right_of[cut] == right and left_of[cut] == left:
                start, end = cut - left_length, cut + right_length
                right_of[start] = left_of[end] = new
                before[left_of[start]].append(start)
                after[right_of[end]].append(end)
        before.pop(NO_TOKEN, None)
        after.pop(NO_TOKEN, None)
        return before, after


class PairQueue:
    """Pairs by falling count, equal counts by rising ids.

    The count of a pair is highest when the pair comes into being, and can only fall from then on.
    So the heap is not told of the falls: an entry is put right when it comes to the top.
    """

    def __init__(self, counts: dict[tuple[int, int], int]) -> None:
        self._counts = counts
        self._heap = [(-count, pair) for pair, count in counts.items()]
        heapify(self._heap)

    def replace(self, old: tuple[int, int], new: tuple[int, int], count: int) -> None:
        """Move `count` occurrences from a known pair to one that has just come into being."""
        self._counts[old] -= count
        self._counts[new] = count
        heappush(self._heap, (-count, new))

    def pop(self) -> tuple[int, int] | None:
        """The most frequent pair, or None when no pair is left."""
        while self._heap:
            negative_count, pair = heappop(self._heap)
            count = self._counts[pair]
            if count == -negative_count:
                return pair
            if count > 0:
                heappush(self._heap, (-count, pair))
        return None


def learn_merges(chunk_counts: Mapping[bytes, int], num_merges: int) -> dict[bytes, int]:
    """Learn up to `num_merges` merges from chunks (UTF-8) and how often each occurs.

    Returns the ranks: each token's bytes and its id, the 256 single bytes first. There are fewer
    merges when every chunk has become one token.
    """
    ranks = byte_ranks()
    tokens = list(ranks)
    cuts = Cuts(chunk_counts)
    cuts_of = cuts.pairs()
    queue = PairQueue({pair: cuts.weight(where) for pair, where in cuts_of.items()})
    while len(ranks) < 256 + num_merges and (pair := queue.pop()):
        left, right = pair
        new = len(tokens)
        tokens.append(tokens[left] + tokens[right])
        ranks[tokens[new]] = new
        before, after = cuts.merge(pair, new, cuts_of.pop(pair))
        # `after` comes first: in `abab` the second merge undoes a pair that the first one made
        for neighbour, where in after.items():
            queue.replace((right, neighbour), (new, neighbour), cuts.weight(where))
            cuts_of[new, neighbour] = where
        for neighbour, where in before.items():
            queue.replace((neighbour, left), (neighbour, new), cuts.weight(where))
            cuts_of[neighbour, new] = where
    return ranks
