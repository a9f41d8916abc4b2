"""Learn the pieces of Unigram and their probabilities: start with too many, drop the least useful.

Which pieces a word is made of is hidden, so their probabilities are found by expectation-
maximisation (EM): count every segmentation of every word by how probable it is now, set the
probabilities to those counts, repeat. Between the rounds, the pieces that the text would miss
least are dropped. It is the reverse of BPE, which starts with too few and adds.

Adds:       one lattice for all words at once, so that a round of EM is a few lines of numpy
Leaves out: SentencePiece's sparse prior (digamma) and its suffix array
Paper:      Kudo (2018), arXiv:1804.10959, section 3.2
Chapter:    chapters/01_tokenization.ipynb
"""

from __future__ import annotations

from collections import Counter

import numpy as np

MAX_PIECE = 16  # characters
MAX_WORD = 24  # characters; a product of more probabilities could leave the range of a float
MAX_WORDS = 100_000  # the most frequent ones; the rest would cost memory and change little
CANDIDATES_PER_PIECE = 10
EM_ROUNDS = 2  # between two prunings
KEPT_SHARE = 0.75  # of the pieces, in each pruning
LEAST_COUNT = 0.5  # a character stays possible when longer pieces took all its occurrences
# Log-probabilities are rounded to multiples of a power of two. Their sums are then exact, also
# in 32 bits, so every implementation finds the same best path, and the same ties.
STEP = 2.0**-10


def learn_pieces(
    counts: Counter[str], max_pieces: int, required: str = ""
) -> list[tuple[str, float]]:
    """Return up to max_pieces (piece, log-probability) pairs, the most probable first.

    `counts` says how often each word occurs. Every character of the words becomes a piece, or
    the most frequent ones when not all fit; `required` is one even if no word holds it.

    Chapter:  chapters/01_tokenization.ipynb
    """
    counts, characters = _prepare(counts, max_pieces, required)
    pieces, frequency = _candidates(counts, characters, max_pieces)
    in_words, in_pieces = _Lattice(list(counts), pieces), _Lattice(pieces, pieces)
    repeats = np.array(list(counts.values()), dtype=float)
    probs = frequency / frequency.sum()
    while True:
        for _ in range(EM_ROUNDS):
            expected = in_words.expected_counts(probs, repeats)
            expected[: len(characters)] = expected[: len(characters)].clip(LEAST_COUNT)
            probs = expected / expected.sum()
        alive = np.flatnonzero(probs)
        if len(alive) <= max_pieces:
            break
        keep = max(max_pieces, int(len(alive) * KEPT_SHARE))
        loss = _loss_without(alive, expected, probs, in_pieces)
        probs[alive[np.argsort(-loss, kind="stable")[keep:]]] = 0.0
        in_words.keep_possible(probs)
        in_pieces.keep_possible(probs)
    ranked = alive[np.argsort(-probs[alive], kind="stable")]
    return [(pieces[i], round(np.log(probs[i]) / STEP) * STEP) for i in ranked]


def _loss_without(
    alive: np.ndarray, expected: np.ndarray, probs: np.ndarray, in_pieces: _Lattice
) -> np.ndarray:
    """Return how much log-likelihood the text loses if each piece has to be spelled by others.

    A single character has no other spelling: its loss is infinite, and so it stays.
    """
    others = in_pieces.other_spellings(probs)[alive]
    with np.errstate(divide="ignore"):
        return expected[alive] * (np.log(probs[alive]) - np.log(others))


class _Lattice:
    """Every place in every text where a piece fits: one row per place, one array per column."""

    def __init__(self, texts: list[str], pieces: list[str]) -> None:
        ids = {piece: i for i, piece in enumerate(pieces)}
        places = [
            (i, start, end, ids[text[start:end]])
            for i, text in enumerate(texts)
            for start, end in _spans(text)
            if text[start:end] in ids
        ]
        columns = np.array(places, dtype=np.int32).reshape(-1, 4).T
        self.text, self.start, self.end, self.piece = columns
        self.length = np.array([len(text) for text in texts], dtype=np.int32)

    def keep_possible(self, probs: np.ndarray) -> None:
        """Forget the places of pieces that were dropped."""
        kept = np.flatnonzero(probs[self.piece])
        columns = (self.text, self.start, self.end, self.piece)
        self.text, self.start, self.end, self.piece = (column[kept] for column in columns)

    def expected_counts(self, probs: np.ndarray, repeats: np.ndarray) -> np.ndarray:
        """Return how often each piece is used, averaged over all segmentations (the E step)."""
        weight = probs[self.piece]
        before = self._path_sums(self.start, self.end, weight)
        # Read backwards, what comes after a piece is what comes before it.
        length = self.length[self.text]
        after = self._path_sums(length - self.end, length - self.start, weight)
        through = before[self.text, self.start] * weight * after[self.text, length - self.end]
        share = through / before[self.text, length]
        return np.bincount(self.piece, share * repeats[self.text], len(probs))

    def other_spellings(self, probs: np.ndarray) -> np.ndarray:
        """Return the probability of each text without the piece that is all of it."""
        whole = self.end - self.start == self.length[self.text]
        sums = self._path_sums(self.start, self.end, np.where(whole, 0.0, probs[self.piece]))
        return sums[np.arange(len(self.length)), self.length]

    def _path_sums(self, start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return, for each text and position, the probability of all paths from 0 to there."""
        sums = np.zeros((len(self.length), self.length.max(initial=0) + 1))  # (texts, positions)
        sums[:, 0] = 1.0
        by_end = np.argsort(end.astype(np.int16), kind="stable")  # 16 bits: sorted by counting
        starts_at = np.searchsorted(end[by_end], np.arange(sums.shape[1] + 1))
        for position in range(1, sums.shape[1]):
            rows = by_end[starts_at[position] : starts_at[position + 1]]
            arriving = sums[self.text[rows], start[rows]] * weight[rows]
            sums[:, position] = np.bincount(self.text[rows], arriving, len(sums))
        return sums


def _prepare(
    counts: Counter[str], max_pieces: int, required: str
) -> tuple[Counter[str], list[str]]:
    """Return the words cut to what can be learned, and the characters that will be pieces."""
    frequency: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            frequency[character] += count
    by_count = sorted(frequency.keys() - {required}, key=lambda c: (-frequency[c], c))
    characters = [*required, *by_count][:max_pieces]
    # A character without a piece ends a word: bytes will spell it.
    gap = {ord(character): " " for character in frequency.keys() - set(characters)}
    words: Counter[str] = Counter()
    for word, count in sorted(counts.items()):
        for part in word.translate(gap).split(" "):
            for start in range(0, len(part), MAX_WORD):
                words[part[start : start + MAX_WORD]] += count
    return Counter(dict(words.most_common(MAX_WORDS))), characters


def _candidates(
    counts: Counter[str], characters: list[str], max_pieces: int
) -> tuple[list[str], np.ndarray]:
    """Return the characters and the substrings that cover the most text, with their counts."""
    frequency: Counter[str] = Counter(dict.fromkeys(characters, 0))
    for word, count in counts.items():
        for start, end in _spans(word):
            frequency[word[start:end]] += count
    longer = [piece for piece, count in frequency.items() if len(piece) > 1 and count > 1]
    longer.sort(key=lambda piece: (-len(piece) * frequency[piece], piece))
    pieces = characters + longer[: CANDIDATES_PER_PIECE * max_pieces]
    return pieces, np.array([max(frequency[piece], LEAST_COUNT) for piece in pieces])


def _spans(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) of every substring that is short enough to be a piece."""
    return [
        (start, end)
        for start in range(len(text))
        for end in range(start + 1, min(start + MAX_PIECE, len(text)) + 1)
    ]
