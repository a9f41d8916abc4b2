"""Learn the pieces of WordPiece: start from characters, join one pair of neighbours at a time.

This is the loop of byte-pair encoding with another question. BPE asks which pair is the most
frequent; WordPiece asks which pair, once joined, makes the training text most probable.

Adds:       three scores, each one line, and counts that a join updates where it changed something
Leaves out: nothing is joined across words, and pairs seen only once are never joined
Paper:      Schuster and Nakajima (2012), "Japanese and Korean voice search", section 3
Chapter:    chapters/01_tokenization.ipynb
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np

# Each takes arrays: how often the pair, its left and its right piece occur, and all pieces.
SCORES: dict[str, Callable[..., np.ndarray]] = {
    # How much log-likelihood the join gains, to first order: as often as the pair occurs, one
    # token of probability ab/total replaces two that were drawn independently.
    "likelihood": lambda ab, a, b, total: ab * np.log(ab * total / (a * b)),
    # The gain of one occurrence. It prefers rare pieces that only ever stand together.
    "ratio": lambda ab, a, b, total: ab / (a * b),
    "count": lambda ab, a, b, total: ab * 1.0,
}
MIN_COUNT = 2  # a pair seen once teaches nothing, yet its ratio is the highest of all


def learn_pieces(counts: Counter[str], max_pieces: int, score: str, prefix: str) -> list[str]:
    """Return up to max_pieces pieces: the characters, then what joining them made, in order.

    `counts` says how often each word occurs.

    Raises:   ValueError for an unknown score
    Chapter:  chapters/01_tokenization.ipynb
    """
    if score not in SCORES:
        raise ValueError(f"score={score!r} must be one of {', '.join(SCORES)}")
    spellings = _Spellings(counts, max_pieces, prefix)
    while len(spellings.pieces) < max_pieces:
        pair = spellings.best_pair(SCORES[score])
        if pair is None:
            break
        spellings.join(pair)
    return spellings.pieces


class _Spellings:
    """Every word as a list of piece ids, and how often each piece and each pair occurs.

    The counts are machine integers that numpy scores without copying, since every score changes
    with every join. A pair has a slot: its place in the arrays left, right and pair_count.
    """

    def __init__(self, counts: Counter[str], max_pieces: int, prefix: str) -> None:
        self.prefix = prefix
        # Sorted, so that which of two equal scores comes first does not depend on the texts.
        spelled = {word: _characters(word, prefix) for word in sorted(counts)}
        self.pieces = _most_frequent(spelled, counts, max_pieces)
        ids = {piece: i for i, piece in enumerate(self.pieces)}
        known = [word for word in spelled if ids.keys() >= set(spelled[word])]
        self.words = [[ids[piece] for piece in spelled[word]] for word in known]
        self.repeats = [counts[word] for word in known]
        self.piece_count = array("q", [0]) * len(self.pieces)
        self.left, self.right, self.pair_count = array("q"), array("q"), array("q")
        self.slots: dict[tuple[int, int], int] = {}
        self.where: list[set[int]] = []  # by slot: the words that hold or once held the pair
        for word in range(len(self.words)):
            self._count(word, +1)

    def _count(self, word: int, sign: int) -> None:
        """Add (+1) or take away (-1) what one word contributes to the counts."""
        repeats = sign * self.repeats[word]
        for piece in self.words[word]:
            self.piece_count[piece] += repeats
        for pair in pairwise(self.words[word]):
            slot = self.slots.get(pair)
            if slot is None:
                slot = self._new_slot(pair)
            self.pair_count[slot] += repeats
            self.where[slot].add(word)

    def _new_slot(self, pair: tuple[int, int]) -> int:
        self.left.append(pair[0])
        self.right.append(pair[1])
        self.pair_count.append(0)
        self.where.append(set())
        return self.slots.setdefault(pair, len(self.slots))

    def best_pair(self, score: Callable[..., np.ndarray]) -> tuple[int, int] | None:
        """Return the pair of highest score, or None when none is left to join."""
        pair_count, piece_count = np.asarray(self.pair_count), np.asarray(self.piece_count)
        alive = np.flatnonzero(pair_count >= MIN_COUNT)
        if not len(alive):
            return None
        left, right = np.asarray(self.left)[alive], np.asarray(self.right)[alive]
        a, b = piece_count[left], piece_count[right]
        best = score(pair_count[alive], a, b, piece_count.sum()).argmax()
        return int(left[best]), int(right[best])

    def join(self, pair: tuple[int, int]) -> None:
        """Make one piece of the pair wherever it stands; only the words that hold it change."""
        new = len(self.pieces)
        self.pieces.append(self.pieces[pair[0]] + self.pieces[pair[1]].removeprefix(self.prefix))
        self.piece_count.append(0)
        for word in self.where[self.slots[pair]]:
            self._count(word, -1)
            self.words[word] = _joined(self.words[word], pair, new)
            self._count(word, +1)
        self.where[self.slots[pair]].clear()


def _characters(word: str, prefix: str) -> list[str]:
    return [word[0], *(prefix + character for character in word[1:])]


def _most_frequent(
    spelled: dict[str, list[str]], counts: Counter[str], max_pieces: int
) -> list[str]:
    """Return the characters that fit, in alphabetical order; words with others are not learned."""
    frequency: Counter[str] = Counter()
    for word, characters in spelled.items():
        for character in characters:
            frequency[character] += counts[word]
    by_count = sorted(frequency, key=lambda piece: (-frequency[piece], piece))
    return sorted(by_count[:max_pieces])


def _joined(pieces: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Return the pieces with each occurrence of the pair, from the left, replaced by new."""
    joined, i = [], 0
    while i < len(pieces):
        both = tuple(pieces[i : i + 2]) == pair
        joined.append(new if both else pieces[i])
        i += 2 if both else 1
    return joined
