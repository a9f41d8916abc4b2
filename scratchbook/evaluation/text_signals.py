"""What can be seen in generated text without a reference: spacing, loops, words, syntax, drift.

None of these says that a text is good. Each says of one way of being bad whether it is there.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from scratchbook.tokenizers.quality import looks_space_broken

WORD = re.compile(r"[^\W\d_]{2,}")
LONGEST_WORD = 30  # letters: longer ones are words that lost the spaces between them


def spacing(text: str) -> bool:
    """Whether the spaces stand where they should: neither between letters nor missing.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    longest = max(map(len, WORD.findall(text)), default=0)
    return longest <= LONGEST_WORD and not looks_space_broken(text)


def loop_share(text: str, times: int = 3) -> float:
    """The share of a text, from its end, that is one piece repeated `times` times or more.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    longest = 0
    for period in range(1, len(text) // times + 1):
        same = 0
        while same < len(text) - period and text[-1 - same] == text[-1 - same - period]:
            same += 1
        if same + period >= max(times * period, 12):  # a row of dots is no loop
            longest = max(longest, same + period)
    return longest / max(len(text), 1)


def distinct(texts: Iterable[str], n: int = 2) -> float:
    """The share of all n-grams of words that are different: 1 is all new, near 0 a loop.

    Paper:    Li et al. (2016), arXiv:1510.03055, section 5
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    found = Counter(gram for text in texts for words in [text.split()]
                    for gram in zip(*(words[i:] for i in range(n)), strict=False))
    return len(found) / max(found.total(), 1)


def known_words(text: str, vocabulary: Collection[str]) -> float:
    """The share of a text's words that are in a vocabulary; the first and last may be cut off.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    words = [word.lower() for word in WORD.findall(text)][1:-1]
    return sum(word in vocabulary for word in words) / max(len(words), 1)


def words_of(texts: Iterable[str], fewest: int = 2) -> set[str]:
    """The words that texts use at least `fewest` times: a vocabulary for `known_words`."""
    counts = Counter(word.lower() for text in texts for word in WORD.findall(text))
    return {word for word, count in counts.items() if count >= fewest}


def parses(code: str) -> bool:
    """Whether Python reads a piece of code, its last and perhaps unfinished line left out.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    whole = code[: code.rfind("\n") + 1] or code
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(whole.rstrip() or "pass")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def topic_drift(text: str) -> float:
    """1 minus the cosine between the words of both halves: 0 stays on its topic, 1 shares none.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    words = [word.lower() for word in WORD.findall(text) if len(word) > 3]
    first, second = Counter(words[: len(words) // 2]), Counter(words[len(words) // 2 :])
    lengths = math.prod(math.sqrt(sum(c * c for c in half.values())) for half in (first, second))
    return 1 - sum(first[word] * second[word] for word in first) / lengths if lengths else 0.0


def signals(texts: Sequence[str], vocabulary: Collection[str]) -> dict[str, float]:
    """Every signal of this file as a mean over texts.

    Raises:   ValueError when there is no text
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not texts:
        raise ValueError("there is no text to look at")
    rows = {"spacing": spacing, "loops": loop_share, "drift": topic_drift,
            "known_words": lambda text: known_words(text, vocabulary),
            "syntax_errors": lambda text: not parses(text)}
    found = {name: sum(map(signal, texts)) / len(texts) for name, signal in rows.items()}
    return found | {"distinct": distinct(texts)}
