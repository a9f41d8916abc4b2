"""Motifs of source code: brackets, names, indentation, delimiters, the method that one is in.

All is read from the texts of the tokens alone, so a window may begin and end anywhere. Strings and
comments are no code; one that the window cuts in two is not recognised.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

import keyword
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from torch import Tensor

from scratchbook.interpret.patterns import (
    Motif,
    first_token,
    induction,
    make_motif,
    previous_token,
)

PARTNERS = {")": "(", "]": "[", "}": "{"}
SPECIAL = r"<\|\w+\|>"
WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Language:
    """What the motifs must know of a language: quoted text, its own words, signs, method starts."""

    quoted: re.Pattern
    words: frozenset[str]
    delimiters: frozenset[str]
    method: re.Pattern


LANGUAGES = {
    "python": Language(
        re.compile(r"#[^\n]*|\'\'\'.*?\'\'\'|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|"
                   r'"(?:\\.|[^"\\\n])*"' + f"|{SPECIAL}", re.DOTALL),
        frozenset([*keyword.kwlist, *keyword.softkwlist]), frozenset(",:;"),
        re.compile(r"\b(?:async )?def\b")),
    "smalltalk": Language(
        re.compile(rf"'[^']*'|\"[^\"]*\"|{SPECIAL}"),
        frozenset(["self", "super", "true", "false", "nil", "thisContext"]), frozenset(".;|"),
        re.compile(r"<\|(?:class)?method\|>")),
}


@dataclass(frozen=True)
class TokenText:
    """A text as its tokens spell it, and where things stand in it, by token.

    Raises:   ValueError for an unknown language
    Chapter:  chapters/06e_pattern_mining.ipynb
    """

    pieces: tuple[str, ...]
    language: str

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"language={self.language!r} is unknown; choose one of "
                             f"{', '.join(LANGUAGES)}")

    @cached_property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @cached_property
    def starts(self) -> list[int]:
        """The place of each token's first character."""
        return [0, *accumulate(map(len, self.pieces))][: len(self.pieces)]

    @cached_property
    def code(self) -> str:
        """The text with strings, comments and special tokens blanked out, equally long."""
        return LANGUAGES[self.language].quoted.sub(
            lambda found: re.sub(r"[^\n]", " ", found[0]), self.text)

    def token_at(self, place: int) -> int:
        """Which token holds the character at `place`."""
        return bisect_right(self.starts, place) - 1

    @cached_property
    def brackets(self) -> list[tuple[int, int]]:
        """(token of the closing bracket, token of its partner), where they are two tokens."""
        waiting: list[int] = []
        pairs = []
        for place, sign in enumerate(self.code):
            if sign in "([{":
                waiting.append(place)
            elif sign in PARTNERS and waiting and self.code[waiting[-1]] == PARTNERS[sign]:
                pairs.append((self.token_at(place), self.token_at(waiting.pop())))
        return sorted({pair for pair in pairs if pair[0] != pair[1]})

    @cached_property
    def openers(self) -> list[int]:
        """The tokens that hold an opening bracket."""
        return sorted({self.token_at(p) for p, sign in enumerate(self.code) if sign in "([{"})

    @cached_property
    def identifiers(self) -> list[tuple[int, str]]:
        """(last token, name) of each identifier; the language's own words are none."""
        own = LANGUAGES[self.language].words
        return [(self.token_at(found.end() - 1), found[0])
                for found in WORD.finditer(self.code) if found[0] not in own]

    @cached_property
    def lines(self) -> list[tuple[int, int]]:
        """(first token, width of the indentation) of each line with code in it.

        The first line is left out: the window may have cut it.
        """
        found = re.finditer(r"\n([ \t]*)(?=\S)", self.code)
        return [(self.token_at(line.end()), len(line[1].expandtabs(4))) for line in found]

    @cached_property
    def delimiters(self) -> list[int]:
        """The tokens that hold nothing but delimiters, blanks and ends of lines."""
        signs = LANGUAGES[self.language].delimiters
        return [number for number, (piece, start) in enumerate(zip(self.pieces, self.starts,
                                                                   strict=True))
                if ("\n" in piece or piece.strip()) and set(piece.strip()) <= signs
                and not set(self.code[start : start + len(piece)].strip()) - signs
                and ("\n" in piece or self.code[start : start + len(piece)].strip())]

    @cached_property
    def methods(self) -> list[int]:
        """The first token of each method's head."""
        pattern, smalltalk = LANGUAGES[self.language].method, self.language == "smalltalk"
        return [self.token_at(found.start())
                for found in pattern.finditer(self.text if smalltalk else self.code)]


def bracket_motif(text: TokenText) -> Motif:
    """From a closing bracket to its partner; rivals are other opening brackets.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    return make_motif(text.brackets, lambda query, key: text.openers, len(text.pieces))


def identifier_motif(text: TokenText) -> Motif:
    """From a name to its last occurrence before; rivals are names about equally frequent here.

    About means within a factor of two. Both stand at the last token of the name, where it is known.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    counts = Counter(name for _, name in text.identifiers)
    name_at = dict(text.identifiers)
    pairs, last = [], {}
    for place, name in text.identifiers:
        if name in last and last[name] < place:
            pairs.append((place, last[name]))
        last[name] = place

    def alike(query: int, key: int) -> list[int]:
        name = name_at[key]
        return [place for place, other in text.identifiers if other != name and place < query
                and counts[name] / 2 <= counts[other] <= counts[name] * 2]

    return make_motif(pairs, alike, len(text.pieces))


def indentation_motif(text: TokenText) -> Motif:
    """From a line's first token to that of the line it is indented under; rivals: other lines'.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    pairs = []
    for number, (place, width) in enumerate(text.lines):
        outer = [start for start, other in text.lines[:number] if other < width]
        if outer and outer[-1] < place:
            pairs.append((place, outer[-1]))
    starts = [place for place, _ in text.lines]
    return make_motif(pairs, lambda query, key: (s for s in starts if s < query),
                      len(text.pieces))


def delimiter_motif(text: TokenText, skip: int = 0) -> Motif:
    """From any token to the last delimiter at least two places back; rivals: tokens beside it.

    With `skip` 1 to the delimiter before that one, and so on.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    delimiters, time = text.delimiters, len(text.pieces)
    others = sorted(set(range(time)) - set(delimiters))
    pairs = []
    for query in range(2, time):
        before = bisect_right(delimiters, query - 2) - skip
        if before > 0:
            pairs.append((query, delimiters[before - 1]))
    return make_motif(pairs, lambda query, key: others[: bisect_right(others, query)], time)


def method_motif(text: TokenText, skip: int = 0) -> Motif:
    """From any token to the head of the method that it is in; rivals: the tokens beside the head.

    Only from four places behind the head on. With `skip` 1 to the head before that one.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    heads, time = text.methods, len(text.pieces)
    pairs = []
    for query in range(time):
        before = bisect_right(heads, query - 4)
        if before > skip and (before == len(heads) or heads[before] > query):
            pairs.append((query, heads[before - 1 - skip]))
    return make_motif(pairs, lambda query, key: range(query + 1), time)


def all_motifs(ids: Sequence[int] | Tensor, pieces: Sequence[str], language: str
               ) -> dict[str, Motif]:
    """Every motif of the chapter for one text.

    Raises:   ValueError when ids and pieces differ in number
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    if len(ids) != len(pieces):
        raise ValueError(f"{len(ids)} ids and {len(pieces)} pieces: give one text for each token")
    text, time = TokenText(tuple(pieces), language), len(pieces)
    return {"previous token": previous_token(time), "two back": previous_token(time, 2),
            "first token": first_token(time), "induction": induction(ids),
            "bracket": bracket_motif(text), "same name": identifier_motif(text),
            "indentation": indentation_motif(text), "delimiter": delimiter_motif(text),
            "method head": method_motif(text)}
