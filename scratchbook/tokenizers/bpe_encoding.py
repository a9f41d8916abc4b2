"""One chunk of text to tokens: fuse neighbours, the pair of the lowest rank before all others.

Three ways, for three kinds of chunk: a plain search for a word, a heap for a chunk of any length
(a line of dashes, a megabyte of one letter), and a dictionary for all that was seen before.

Paper:    Sennrich et al. (2016), arXiv:1508.07909, section 3.2
Chapter:  chapters/01_tokenization.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

NO_RANK = 1 << 60  # of two neighbours that make no token
MERGED = -1  # the end of the token right of a cut that is no longer there
LONG = 64  # bytes from which the heap is faster (measured)


def split_short(chunk: bytes, ranks: Mapping[bytes, int], below: int = NO_RANK) -> list[bytes]:
    """Cut a chunk into tokens by fusing, each time, the pair of the lowest rank under `below`.

    Every step looks at all pairs: quadratic, and the fastest way for a chunk of a word's length.
    """
    cuts = list(range(len(chunk) + 1))
    pair_ranks = [ranks.get(chunk[cut : cut + 2], NO_RANK) for cut in range(len(chunk) - 1)]
    while pair_ranks and (lowest := min(pair_ranks)) < below:
        at = pair_ranks.index(lowest)  # the leftmost
        del pair_ranks[at], cuts[at + 1]
        # the new token makes new pairs with its neighbours
        if at:
            pair_ranks[at - 1] = ranks.get(chunk[cuts[at - 1] : cuts[at + 1]], NO_RANK)
        if at < len(pair_ranks):
            pair_ranks[at] = ranks.get(chunk[cuts[at] : cuts[at + 2]], NO_RANK)
    return [chunk[start:end] for start, end in pairwise(cuts)]


def split_long(chunk: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What `split_short` does, in n log n steps: a heap keeps the pairs in order.

    A pair is the cut between its tokens. When one of them grows, its entry in the heap is stale,
    and shows it: the bytes around the cut no longer have the rank of the entry.
    """
    start_of = list(range(-1, len(chunk)))  # of the token left of each cut
    end_of = list(range(1, len(chunk) + 2))  # of the token right of each cut
    heap = [
        (rank, cut)
        for cut in range(1, len(chunk))
        if (rank := ranks.get(chunk[cut - 1 : cut + 1])) is not None
    ]
    heapify(heap)
    while heap:
        rank, cut = heappop(heap)
        start, end = start_of[cut], end_of[cut]
        if end == MERGED or ranks.get(chunk[start:end]) != rank:
            continue
        end_of[cut] = MERGED
        end_of[start], start_of[end] = end, start
        for neighbour in (start, end):
            if 0 < neighbour < len(chunk):
                pair = chunk[start_of[neighbour] : end_of[neighbour]]
                if (pair_rank := ranks.get(pair)) is not None:
                    heappush(heap, (pair_rank, neighbour))
    cuts = [cut for cut in range(len(chunk)) if end_of[cut] != MERGED]
    return [chunk[cut : end_of[cut]] for cut in cuts]


class ChunkCache(dict[str, list[int]]):
    """From chunks to ids. Each chunk is worked out when it is first asked for.

    Real text repeats itself: 20 MB of code hold five million chunks, of which 70,000 differ.
    """

    MOST_CHUNKS = 1 << 17
    LONGEST_CHUNK = 64

    def __init__(self, ranks: Mapping[bytes, int]) -> None:
        super().__init__()
        self._ranks = ranks

    def __missing__(self, chunk: str) -> list[int]:
        ids = self._work_out(chunk.encode("utf-8"))
        if len(self) >= self.MOST_CHUNKS:
            self.clear()
        if len(chunk) <= self.LONGEST_CHUNK:
            self[chunk] = ids
        return ids

    def _work_out(self, chunk: bytes) -> list[int]:
        if (whole := self._ranks.get(chunk)) is not None:
            return [whole]
        split = split_short if len(chunk) < LONG else split_long
        return [self._ranks[token] for token in split(chunk, self._ranks)]
