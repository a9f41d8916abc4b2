r"""The first cut: text into chunks (words, numbers, marks, spaces) that no token may cross.

BPE would otherwise spend its vocabulary on `dog.`, `dog!` and `dog?`. GPT-2, GPT-4 (cl100k) and
GPT-4o (o200k) cut with one regular expression each. Chunks join up to the text again, nothing lost.

A pattern asks Unicode what a letter is, and Unicode answers differently every year, with whatever
version the regex library carries. Ids must not change when a library is updated, so this file
freezes the answer at Unicode 16, which tiktoken 0.14 uses.

Paper:    Radford et al. (2019), "Language Models are Unsupervised Multitask Learners", section 2.2
Chapter:  chapters/01_tokenization.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, pairwise

import regex

# Each alternative is tried in order. What differs from one to the next: which mark may be glued to
# the front of a word, how long a number may grow, where newlines go, and (o200k) that a capital
# starts a new word. The end of the text is written (?![\s\S]), because `$` means three different
# things in Python, Rust and the Rust library's Oniguruma.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)"
    r"| ?[\p{L}]++"
    r"| ?[\p{N}]++"
    r"| ?[^\s\p{L}\p{N}]++"
    r"|\s++(?![\s\S])|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?+[\p{L}]++"
    r"|[\p{N}]{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[\p{N}]{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}

# In ASCII the classes are short, and the standard `re` can say them: it cuts code 2.3 times as fast
# as `regex` does. (It needs re.ASCII, or its \s would also take four control characters.)
ASCII_CLASSES = {
    r"\p{L}": "A-Za-z",
    r"\p{N}": "0-9",
    r"\p{Lu}": "A-Z",
    r"\p{Ll}": "a-z",
    r"\p{Lt}": "",
    r"\p{Lm}": "",
    r"\p{Lo}": "",
    r"\p{M}": "",
}

# Code points (hexadecimal) that became letters, digits or marks in Unicode 17 or 18. When a later
# version adds more, the test of parity that goes through the characters one by one will tell.
LATER = """
558 58b-58c 5c8-5c9 88f b53-b54 c5c cdc 1acf-1af0 208f 209d-209f a7ce-a7cf a7d2 a7d4 a7dd a7e2 a7f1
ab6c-ab6d 107bb-107bf 10940-10959 10ec5-10ec7 10ecb-10ecf 10ed9-10eee 10ef0-10efb 11b0a 11b60-11b67
11db0-11ddb 11de0-11de9 11df0-11df1 1246f 12475-1247f 12550-12686 16ea0-16eb8 16ebb-16ed3
16ff2-16ff6 187f8-187ff 18cd6-18cda 18d09-18d20 18d80-18df2 18e00-19191 191a0-191d2 1b123-1b128
1b168 1d127-1d128 1d250-1d252 1d25b-1d25c 1d25f 1d280-1d281 1d6a6 1df1f-1df24 1df2b-1df81
1df90-1df96 1dfcd-1dfff 1e6c0-1e6de 1e6e0-1e6f5 1e6fe-1e6ff 2b73a-2b73f 2b81e 2cea2-2cead
323b0-33479 3d000-3fc3f
"""
UNASSIGNED = "\ue000"  # private use: in none of the patterns' classes, like the unassigned
CASE_LOST = "ʕ"  # a lower-case letter in Unicode 16, a letter without case in Unicode 18
LOWER_CASE = "ʖ"

BLOCK = 1 << 12  # characters: from 2,000 to 8,000 it is equally fast, at 64,000 a fifth slower
# Between a letter and a space, every pattern ends a chunk, whatever comes before or after.
SAFE_CUT = re.compile(r"[A-Za-z](?=[ \n])")


def _character_class(spans: list[str]) -> str:
    return "".join("-".join(chr(int(end, 16)) for end in span.split("-")) for span in spans)


def _later_pattern() -> re.Pattern[str]:
    # `re` looks a character up at once in a class below U+10000, but walks through the spans
    # above. Hence a coarse class first and the exact one behind it: 20 times as fast on most text.
    exact = [*LATER.split(), f"{ord(CASE_LOST):x}"]
    coarse = [span for span in exact if len(span.split("-")[0]) < 5] + ["10000-10ffff"]
    return re.compile(f"[{_character_class(coarse)}](?<=[{_character_class(exact)}])")


def _stand_in(character: str) -> str:
    return LOWER_CASE if character == CASE_LOST else UNASSIGNED


class Splitter:
    """One of the three patterns, ready to cut.

    Raises:   ValueError for an unknown name
    """

    _later = _later_pattern()

    def __init__(self, pattern: str) -> None:
        if pattern not in PATTERNS:
            raise ValueError(f"pattern={pattern!r} is unknown: choose one of {list(PATTERNS)}")
        self.pattern = pattern
        in_ascii = PATTERNS[pattern]
        for name, members in ASCII_CLASSES.items():
            in_ascii = in_ascii.replace(name, members)
        self._find_ascii = re.compile(in_ascii, re.ASCII).findall
        self._find = regex.compile(PATTERNS[pattern]).findall

    def split(self, text: str) -> list[str]:
        """Cut text into chunks; joined, they are the text."""
        if text.isascii():
            return self._find_ascii(text)
        if not self._later.search(text):
            return self._find(text)
        frozen = self._later.sub(lambda found: _stand_in(found[0]), text)
        ends = accumulate(map(len, self._find(frozen)), initial=0)
        return [text[start:end] for start, end in pairwise(ends)]

    def blocks(self, text: str) -> Iterator[list[str]]:
        """Cut text into chunks, a few thousand characters at a time.

        It is faster than `split` on long text: fewer strings are alive at once, and one accented
        letter takes only its own block off the fast path for ASCII.
        """
        start = 0
        while cut := SAFE_CUT.search(text, start + BLOCK):
            yield self.split(text[start : cut.end()])
            start = cut.end()
        yield self.split(text[start:] if start else text)
