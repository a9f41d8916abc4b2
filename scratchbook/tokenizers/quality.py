"""How good is a tokenizer? Numbers that need no model: length, losses, waste, broken spacing.

Adds:       measures of any tokenizer on any text, and a detector of 'O n ce u p on a t i me'
Leaves out: what only a trained language model can tell (bits per byte: see chapter 01)

Every text is encoded with `encode_ordinary`: a text may spell a special token here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import regex

from scratchbook.tokenizers.base import Tokenizer, as_texts

# Words in a row, one space between any two: combining marks and apostrophes belong to a word.
_WORDS_IN_A_ROW = regex.compile(r"[\p{L}\p{M}'’]+(?: [\p{L}\p{M}'’]+)+")
# In correct text, short words stand between long ones, and two one-letter words hardly ever stand
# side by side. tests/test_quality.py measures what these bounds let through and what they find.
FEWEST_WORDS = 8
SHORTEST_MEAN = 3.0  # letters
FEWEST_SINGLE_PAIRS = 2
MOST_SINGLE_PAIRS = 0.05  # of all neighbours


def looks_space_broken(text: str) -> bool:
    """Say whether text looks like tokens joined by spaces: 'O n ce u p on a t i me'.

    That is what a byte-level tokenizer's pieces become under a decoder that joins them as words.
    A few words prove nothing, so short texts pass; and so may tokens that are often words, of a
    vocabulary of a thousand or more: there, only the round trip is a test.

    Chapter:  chapters/01_tokenization.ipynb
    """
    rows = [_lengths(row.split(" ")) for row in _WORDS_IN_A_ROW.findall(text)]
    num_words = sum(map(len, rows))
    if num_words < FEWEST_WORDS or sum(map(sum, rows)) / num_words >= SHORTEST_MEAN:
        return False
    single_pairs = sum(pair == (1, 1) for row in rows for pair in pairwise(row))
    share = single_pairs / (num_words - len(rows))
    return single_pairs >= FEWEST_SINGLE_PAIRS and share > MOST_SINGLE_PAIRS


def _lengths(words: list[str]) -> list[int]:
    # Decomposed, a Korean syllable counts as its two or three letters.
    return [len(unicodedata.normalize("NFD", word)) for word in words]


def chars_per_token(tokenizer: Tokenizer, text: str) -> float:
    """Return how many characters a token stands for, on average: higher is shorter sequences.

    Chapter:  chapters/01_tokenization.ipynb
    """
    return len(text) / _num_tokens(tokenizer, text)


def bytes_per_token(tokenizer: Tokenizer, text: str) -> float:
    """Return how many UTF-8 bytes a token stands for: comparable across languages.

    Chapter:  chapters/01_tokenization.ipynb
    """
    return len(text.encode("utf-8")) / _num_tokens(tokenizer, text)


def fertility(tokenizer: Tokenizer, text: str) -> float:
    """Return how many tokens a word takes, words being what white space separates.

    Paper:    Rust et al. (2021), arXiv:2012.15613, section 4
    Chapter:  chapters/01_tokenization.ipynb
    """
    return _num_tokens(tokenizer, text) / _at_least_one(len(text.split()))


def round_trips(tokenizer: Tokenizer, texts: str | Iterable[str]) -> float:
    """Return the share of texts that decode(encode(text)) gives back exactly.

    Chapter:  chapters/01_tokenization.ipynb
    """
    outcomes = [_comes_back(tokenizer, text) for text in as_texts(texts)]
    return sum(outcomes) / _at_least_one(len(outcomes))


def unused_share(tokenizer: Tokenizer, texts: str | Iterable[str]) -> float:
    """Return the share of the vocabulary, special tokens aside, that the texts never use.

    Chapter:  chapters/01_tokenization.ipynb
    """
    used: set[int] = set()
    for text in as_texts(texts):
        used.update(tokenizer.encode_ordinary(text))
    return _share_outside(tokenizer, used)


def report(tokenizer: Tokenizer, texts: str | Iterable[str]) -> dict[str, Any]:
    """Return every measure of this file for a corpus, as plain numbers.

    `space_broken` is True when decoding broke the spacing of texts that had none of it.

    Raises:   ValueError when the texts are empty
    Chapter:  chapters/01_tokenization.ipynb
    """
    texts = list(as_texts(texts))
    ids = [tokenizer.encode_ordinary(text) for text in texts]
    decoded = [tokenizer.decode(part) for part in ids]
    num_tokens = _at_least_one(sum(map(len, ids)))
    return {
        "vocab_size": tokenizer.vocab_size,
        "texts": len(texts),
        "tokens": num_tokens,
        "chars_per_token": sum(map(len, texts)) / num_tokens,
        "bytes_per_token": sum(len(text.encode("utf-8")) for text in texts) / num_tokens,
        "fertility": num_tokens / _at_least_one(sum(len(text.split()) for text in texts)),
        "round_trips": sum(map(str.__eq__, texts, decoded)) / len(texts),
        "unused_share": _share_outside(tokenizer, set().union(*ids)),
        "space_broken": sum(map(looks_space_broken, decoded)) > sum(map(looks_space_broken, texts)),
    }


def _num_tokens(tokenizer: Tokenizer, text: str) -> int:
    return _at_least_one(len(tokenizer.encode_ordinary(text)))


def _share_outside(tokenizer: Tokenizer, used: set[int]) -> float:
    ordinary = set(range(tokenizer.vocab_size)) - set(tokenizer.special_tokens.values())
    return len(ordinary - used) / _at_least_one(len(ordinary))


def _at_least_one(count: int) -> int:
    if not count:
        raise ValueError("there is nothing to measure: the text or the vocabulary is empty")
    return count


def _comes_back(tokenizer: Tokenizer, text: str) -> bool:
    try:
        return tokenizer.decode(tokenizer.encode_ordinary(text)) == text
    except ValueError:  # a text that cannot even be encoded does not come back
        return False
