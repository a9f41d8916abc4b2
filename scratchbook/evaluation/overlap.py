"""How many words do two texts share? ROUGE and BLEU, counted by hand.

Both compare with a reference that somebody wrote: they see words, not meaning.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Overlap(NamedTuple):
    """Which share of the candidate is in the reference, which of the reference was found."""

    precision: float
    recall: float
    f1: float


def rouge_n(candidate: str, reference: str, n: int = 1) -> Overlap:
    """The n-grams that two texts share, each as often as both have it.

    Raises:   ValueError when n is below 1
    Paper:    Lin (2004), https://aclanthology.org/W04-1013
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    ours, theirs = _ngrams(_words(candidate), n), _ngrams(_words(reference), n)
    return _overlap((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(candidate: str, reference: str) -> Overlap:
    """The longest row of words that both texts have in this order, gaps allowed.

    Paper:    Lin (2004), https://aclanthology.org/W04-1013
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    ours, theirs = _words(candidate), _words(reference)
    lengths = [0] * (len(theirs) + 1)
    for word in ours:
        before = lengths[:]
        for j, other in enumerate(theirs, start=1):
            lengths[j] = before[j - 1] + 1 if word == other else max(before[j], lengths[j - 1])
    return _overlap(lengths[-1], len(ours), len(theirs))


def bleu(candidates: Sequence[str], references: Sequence[str], max_n: int = 4) -> float:
    """Corpus BLEU from 0 to 100: precision of 1- to 4-grams, and a penalty for being short.

    Words are what white space separates. A precision of zero counts as half of the smallest
    possible one, the next as a quarter, and so on, as sacrebleu's smoothing "exp" does.

    Raises:   ValueError when the two do not have the same number of texts
    Paper:    Papineni et al. (2002), https://aclanthology.org/P02-1040
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    pairs = [(c.split(), r.split()) for c, r in zip(candidates, references, strict=True)]
    length, wanted = sum(len(c) for c, _ in pairs), sum(len(r) for _, r in pairs)
    logs, smooth = [], 1.0
    for n in range(1, max_n + 1):
        shared = sum((_ngrams(c, n) & _ngrams(r, n)).total() for c, r in pairs)
        total = sum(max(len(c) - n + 1, 0) for c, _ in pairs)
        if not total or (n == 1 and not shared):
            return 0.0
        smooth *= 1 if shared else 2
        logs.append(math.log(shared / total if shared else 1 / (smooth * total)))
    penalty = min(1.0, math.exp(1 - wanted / length))
    return 100 * penalty * math.exp(sum(logs) / max_n)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _ngrams(words: Sequence[str], n: int) -> Counter:
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _overlap(shared: int, ours: int, theirs: int) -> Overlap:
    precision, recall = shared / max(ours, 1), shared / max(theirs, 1)
    return Overlap(precision, recall, 2 * precision * recall / ((precision + recall) or 1))
