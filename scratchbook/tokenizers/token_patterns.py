"""Which words stand where? Counting by context, and telling a difference from chance.

A file of code is several languages in one: code, comments, docstrings, strings, and tests, which
are code with words of their own. Lexers find the contexts: that of this package for Smalltalk,
those of Pygments for the rest. Two ways to compare contexts:

    log_odds           how much likelier a word is here than there, in standard errors, after
                       pulling rare words towards what both contexts have in common
    permutation_test   how often so large a value comes up when whole files are dealt to the two
                       sides at random; corrected for having looked at many words

The first treats every word as drawn by itself, and words come in bursts: one file says `isbn`
forty times. The second moves whole files, so a burst moves as one.

Paper:    Monroe, Colaresi and Quinn (2008), "Fightin' Words", Political Analysis 16(4);
          Westfall and Young (1993), "Resampling-Based Multiple Testing", for the correction
Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from scratchbook.smalltalk.lexer import tokenize

LEXERS = {"python": "python", "go": "go", "vue": "vue", "ruby": "ruby", "erb": "rhtml",
          "javascript": "javascript"}
WORD = re.compile(r"[^\W\d]\w*")
TEST_FILE = re.compile(r"(^|[_.\-])(tests?|spec)([_.\-]|$)|Tests?($|[.\-])")

# The name of each call, message or statement that asserts something, in a test's code.
ASSERTIONS = {
    "python": re.compile(r"\bself\.(assert\w*|fail\w*)\b|\b(assert)\b|\bpytest\.(raises)\b"),
    "ruby": re.compile(r"\b(assert\w*|refute\w*|expect)\b"),
    "go": re.compile(r"\bt\.(Errorf?|Fatalf?|Fail\w*)\b"),
    "vue": re.compile(r"\.(to[A-Z]\w*)\b"),
    "smalltalk": re.compile(r"\bself\s+((?:assert|deny|should|shouldnt)\w*:)"),
}

CASES = {
    "UPPER_CASE": re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*"),
    "snake_case": re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+"),
    "lower": re.compile(r"[a-z][a-z0-9]*"),
    "camelCase": re.compile(r"[a-z][a-z0-9]*(?:[A-Z][A-Za-z0-9]*)+"),
    "PascalCase": re.compile(r"[A-Z][A-Za-z0-9]*"),
}


def contexts(text: str, language: str) -> list[tuple[str, str]]:
    """Cut a text into (context, piece): "code", "comment", "docstring" or "string"; joined, the
    pieces are the text. A text in Smalltalk is one method.

    Raises:   ValueError for a language without a lexer here
    """
    if language == "smalltalk":
        found = _in_smalltalk(text)
    elif language in LEXERS:
        found = _with_pygments(text, LEXERS[language])
    else:
        raise ValueError(f"language={language!r} has no lexer here: choose one of "
                         f"{[*LEXERS, 'smalltalk']}")
    return [(context, "".join(piece for _, piece in pieces))
            for context, pieces in groupby(found, key=lambda pair: pair[0])]


def _in_smalltalk(text: str) -> list[tuple[str, str]]:
    found, end = [], 0
    for token in tokenize(text):
        context = token.kind if token.kind in ("comment", "string") else "code"
        found += [("code", text[end:token.start]), (context, token.text)]
        end = token.start + len(token.text)
    return [(context, piece) for context, piece in [*found, ("code", text[end:])] if piece]


def _with_pygments(text: str, name: str) -> list[tuple[str, str]]:
    from pygments.lexers import get_lexer_by_name

    tokens = get_lexer_by_name(name).get_tokens_unprocessed(text)
    return [(_context(kind), piece) for _, kind, piece in tokens]


def _context(kind: tuple[str, ...]) -> str:
    from pygments.token import Comment, String

    if kind in Comment and kind not in Comment.Preproc and kind not in Comment.Hashbang:
        return "comment"
    if kind in String.Doc:
        return "docstring"
    if kind in String and kind not in String.Symbol and kind not in String.Interpol:
        return "string"
    return "code"


def is_test(name: str) -> bool:
    """Whether a path names a test: `shelf_test.go`, `LoanTable.spec.vue`, `test/models/x.rb`."""
    return any(TEST_FILE.search(part) for part in PurePosixPath(name).parts)


def count_by_context(documents: Iterable[tuple[str, str]], language: str
                     ) -> dict[str, list[Counter[str]]]:
    """The words of each document, as (path, text), by context; the code of a test is "test".

    Returns one counter per document and context: `permutation_test` needs them apart.
    """
    counts: dict[str, list[Counter[str]]] = {}
    for name, text in documents:
        of_file: dict[str, Counter[str]] = {}
        for context, piece in contexts(text, language):
            context = "test" if context == "code" and is_test(name) else context
            of_file.setdefault(context, Counter()).update(WORD.findall(piece))
        for context, found in of_file.items():
            if found:
                counts.setdefault(context, []).append(found)
    return counts


class Odds(NamedTuple):
    """How much likelier a word is in the first context: the log of the odds' ratio, and that in
    standard errors (z)."""

    log_ratio: float
    z: float


def log_odds(first: Mapping[str, int], second: Mapping[str, int], prior: float = 500.0
             ) -> dict[str, Odds]:
    """Compare every word of two counters, shrinking towards the words of both together.

    `prior` is the number of made-up words, dealt in both contexts' common proportions, that each
    side is given besides its own (Monroe's informative Dirichlet prior). The more, the less a word
    that was seen once can say.

    Raises:   ValueError when a side is empty, or `prior` is not positive
    Paper:    Monroe et al. (2008), equations 15, 16 and 20 to 22
    """
    words = sorted(first.keys() | second.keys())
    ones, twos = (np.array([side.get(word, 0) for word in words], float)
                  for side in (first, second))
    ratios, z = _log_odds(ones, twos, prior)
    return {word: Odds(float(r), float(s)) for word, r, s in zip(words, ratios, z, strict=True)}


def _log_odds(first: np.ndarray, second: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray]:
    if not (first.sum() > 0 and second.sum() > 0 and 0 < prior < math.inf):
        raise ValueError(f"{first.sum():.0f} and {second.sum():.0f} words with prior={prior}: both "
                         "sides need words, and the prior a positive weight")
    both = first + second                    # (words,)
    extra = prior * both / both.sum()        # the prior's share of each word
    ones, twos = first + extra, second + extra
    rest_one, rest_two = ones.sum() - ones, twos.sum() - twos
    with np.errstate(divide="ignore"):       # a side that has one word only
        ratio = np.log(ones / rest_one) - np.log(twos / rest_two)
    spread = np.sqrt(1 / ones + 1 / twos)
    return ratio, ratio / spread


def permutation_test(first: Sequence[Counter[str]], second: Sequence[Counter[str]],
                     words: Sequence[str], draws: int = 999, prior: float = 500.0, seed: int = 0
                     ) -> dict[str, float]:
    """The chance of so large a |z| for any of the words, if files were dealt to sides at random.

    One counter is one file. The p-values are corrected for the number of words: each is compared
    with the largest value among all words in every draw, so the chance of one false alarm or more
    is at most what the p-value says. The smallest possible one is 1 / (draws + 1).

    Raises:   ValueError when a side has fewer than two files, or no words are asked for
    Paper:    Westfall and Young (1993), the single-step maxT procedure
    """
    if min(len(first), len(second)) < 2 or not words or draws < 1:
        raise ValueError(f"{len(first)} and {len(second)} files, {len(words)} words, {draws} "
                         "draws: give each side two files or more, and a word")
    files = [*first, *second]
    counts = np.array([[*(c[word] for word in words), sum(c.values())] for c in files], float)
    counts[:, -1] -= counts[:, :-1].sum(1)   # (files, words + 1): the last is all other words
    total = counts.sum(0)
    if missing := [word for word, times in zip(words, total, strict=False) if not times]:
        raise ValueError(f"the word {missing[0]!r} occurs in none of the files, so there is "
                         "nothing to compare: ask for words that do")
    random = np.random.default_rng(seed)

    def largest(chosen: np.ndarray) -> np.ndarray:
        side = counts[chosen].sum(0)
        return np.abs(_log_odds(side, total - side, prior)[1][:-1])

    seen = largest(np.arange(len(first)))
    beaten = np.ones(len(words))
    for _ in range(draws):
        beaten += largest(random.permutation(len(files))[:len(first)]).max() >= seen - 1e-12
    return {word: float(p) for word, p in zip(words, beaten / (draws + 1), strict=True)}


def jensen_shannon(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """How far apart two vocabularies are: 0 for equal shares of words, 1 for no word in common.

    Raises:   ValueError when a side is empty
    Paper:    Endres and Schindelin (2003): the root of the divergence, in bits, is a distance
    """
    words = sorted(first.keys() | second.keys())
    p, q = (np.array([side.get(word, 0) for word in words], float) for side in (first, second))
    if not (p.sum() > 0 and q.sum() > 0):
        raise ValueError("a side has no words, so that it has no shares of them")
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2

    def divergence(shares: np.ndarray) -> float:
        some = shares > 0
        return float((shares[some] * np.log2(shares[some] / middle[some])).sum())

    return math.sqrt(max((divergence(p) + divergence(q)) / 2, 0.0))


def case_style(name: str) -> str:
    """How a name is written: a key of `CASES`, "keyword:" for a Smalltalk selector, or "other".

    Underscores at the ends say who may use a name, not how it is written, and are left out.
    """
    if re.fullmatch(r"(?:[A-Za-z]\w*:)+", name):
        return "keyword:"
    bare = name.strip("_")
    return next((case for case, form in CASES.items() if form.fullmatch(bare)), "other")


def assertions(text: str, language: str) -> Counter[str]:
    """The assertions in a text's code, by name; what stands in comments and strings is none.

    Raises:   ValueError for a language without a pattern here
    """
    if language not in ASSERTIONS:
        raise ValueError(f"language={language!r} has no pattern: choose one of {list(ASSERTIONS)}")
    code = "".join(piece if context == "code" else " " for context, piece in
                   contexts(text, language))
    return Counter("".join(found.groups("")) for found in ASSERTIONS[language].finditer(code))


def docstring_style(text: str) -> str:
    """The convention that a docstring follows: "NumPy", "Google", "reST", or "plain"."""
    if re.search(r"^[ \t]*(?:Parameters|Returns|Raises)[ \t]*\n[ \t]*-{3,}[ \t]*$", text, re.M):
        return "NumPy"
    if re.search(r"^[ \t]*(?:Args|Arguments|Returns|Raises|Yields):[ \t]*\n[ \t]+\S", text, re.M):
        return "Google"
    if re.search(r"^[ \t]*:(?:param|returns?|raises|rtype|type)\b[^:\n]*:", text, re.M):
        return "reST"
    return "plain"
