"""Smalltalk source to tokens: one compiled regular expression a dialect, Pharo's the reference.

A token's kind is the number of the group that matched, so that the loop over the source is the
regular expression engine's. `tokenize` names the kinds; the parser takes the bare columns of
`scan`. As in Pharo, a minus before a digit starts a number unless an operator is already running
(`3-2` is 3 and -2, which the parser takes apart again), and a run of operator characters is one
token (`||`, `>-`), which the parser splits where a bar is meant.

Source:   classes RBScanner and NumberParser of Pharo 13
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from scratchbook.smalltalk.dialects import DIALECTS, Dialect
from scratchbook.smalltalk.errors import bad_token

# in the order in which they are tried
KINDS = ("", "name", "keyword", "punctuation", "constant", "number", "assign", "binary", "symbol",
         "string", "compiled", "array", "bytes", "character", "comment", "end", "bad")
(_, NAME, KEYWORD, PUNCTUATION, CONSTANT, NUMBER, ASSIGN, BINARY, SYMBOL, STRING, COMPILED,
 ARRAY, BYTES, CHARACTER, COMMENT, END, BAD) = range(len(KINDS))
SPACE = " \t\n\r\f\0"
MOST_DIGITS = 1_000  # of an integer whose value is asked for
WORDS = re.compile(r"[^\W\d]\w*+(?::++(?:[^\W\d]\w*+)?)*+")  # a symbol, without its #


class Token(NamedTuple):
    """A piece of source: `kind` is one of KINDS, `text` is `source[start:start + len(text)]`."""

    kind: str
    text: str
    start: int


def digits_of(base: int) -> str:
    """The digits of a base from 2 to 36, capital letters and small ones."""
    names = "0123456789abcdefghijklmnopqrstuvwxyz"[:base]
    return "".join(sorted({*names, *names.upper()}))


def radix_numbers() -> str:
    """`16rFF` for every base: which letters are digits, and so where a number ends, depends on it.

    In base 16 the `e` of `16r1e2` is a digit, in base 2 that of `2r1e2` starts an exponent.
    """
    choices = [f"0*{base}r-?[{digits_of(base)}]++(?:\\.[{digits_of(base)}]++)?"
               for base in range(2, 37)]
    return "|".join([*choices, r"0*(?:3[7-9]|[4-9][0-9]|[1-9][0-9]{2,})r-?[0-9A-Za-z]++"])


def patterns(dialect: Dialect, first: str, more: str, operator: str) -> dict[int, str]:
    """The pattern of each kind; letters and operators are given as sets.

    A number may have an exponent up to 10,000 (Pharo refuses larger ones) or a scale: `3s` is a
    scaled decimal, `3 sqrt` and `3sqrt` are sends.
    """
    name = f"{first}{more}*+"
    words = f"{name}(?::++(?:{name})?)*+"
    quoted = "'[^']*+(?:''[^']*+)*+'"
    constant = f"(?:true|false|nil)(?!{more})"
    plain = f"(?!{constant}){name}(?!:(?!=))"
    assign, symbol, character, compiled = ":=", f"{words}|{operator}++|{quoted}", r"\$.", "(?!)"
    if dialect.underscore:
        plain, assign, symbol = f"(?!_(?!{more})){plain}", f":=|_(?!{more}|:)", f"{symbol}|:++"
    if dialect.dotted:
        plain = rf"(?:[A-Z]{more}*+(?:\.[A-Z_]{more}*+)++|{plain})"
        character = rf"\$(?:\\x[0-9A-Fa-f]++|\\[0abefnrtv](?!{more})|<[0-9A-Za-z]++>)|{character}"
    if dialect.compiled:
        compiled = r"##(?=\()|#\{[^{}]*+\}|`[^`]*+`"
    power = r"[edq]-?0*(?:10000|[0-9]{1,4})(?![0-9])"
    scale = r"(?![edq]-?[0-9])(?:s[0-9]++|s(?![^\W\d_]))?"
    plain_number, radix_number = r"[0-9]++(?!r)(?:\.[0-9]++)?", f"(?=[0-9]++r)(?:{radix_numbers()})"
    number = f"-?(?:{plain_number}|{radix_number})(?:{power}|{scale})"
    return {
        NAME: plain, KEYWORD: f"{name}:(?!=)", PUNCTUATION: "[][(){}^.;]|:(?!=)",
        CONSTANT: constant, NUMBER: number, ASSIGN: assign, BINARY: f"{operator}++",
        SYMBOL: f"#++(?:{symbol})", STRING: quoted, COMPILED: compiled, ARRAY: r"#++\(",
        BYTES: r"#++\[", CHARACTER: character, COMMENT: '"[^"]*+"', END: r"\Z", BAD: "###++|.",
    }


@cache
def compiled_pattern(dialect: str, ascii_only: bool) -> re.Pattern:
    """White space, then one token in the group of its kind; other alphabets cost some speed."""
    if dialect not in DIALECTS:
        raise ValueError(f"dialect={dialect!r} is unknown: choose one of {', '.join(DIALECTS)}")
    first, more, operator = r"[A-Za-z_]", r"\w", r"[-+/\\*~<>=@,%|&?!]"
    if not ascii_only:
        first, more = r"[^\W\d²³¹¼½¾]", r"[^\W²³¹¼½¾]"
        operator = r"[-+/\\*~<>=@,%|&?!·÷±×]"
    groups = patterns(DIALECTS[dialect], first, more, operator)
    whole = "|".join(f"({groups[kind]})" for kind in range(NAME, len(KINDS)))
    return re.compile(f"[{SPACE}]*+(?:{whole})", re.DOTALL | (re.ASCII if ascii_only else 0))


class Columns(NamedTuple):
    """The tokens of a source as columns; comments stand apart.

    Two tokens of kind END, without text, come last; three where white space ends the source.
    """

    kinds: list[int]
    texts: list[str]
    starts: list[int]
    comments: list[tuple[str, int]]


def scan(source: str, dialect: str = "pharo") -> Columns:
    """What the parser reads. It never fails: what is no token is of kind BAD."""
    pattern = compiled_pattern(dialect, source.isascii())
    rows = [(found.lastindex, found[found.lastindex], found.start(found.lastindex))
            for found in pattern.finditer(source)]
    comments = []
    if '"' in source:
        comments = [(text, start) for kind, text, start in rows if kind == COMMENT]
        rows = [row for row in rows if row[0] != COMMENT]
    rows.append((END, "", len(source)))
    kinds, texts, starts = map(list, zip(*rows, strict=True))
    return Columns(kinds, texts, starts, comments)


def tokenize(source: str, dialect: str = "pharo") -> list[Token]:
    """All tokens, comments among them; white space is what lies between.

    Example:  tokenize("x at: 1") gives the name `x`, the keyword `at:`, the number `1`
    Raises:   SmalltalkSyntaxError where no token can start, ValueError for an unknown dialect
    """
    tokens = []
    for found in compiled_pattern(dialect, source.isascii()).finditer(source):
        kind = found.lastindex
        if kind == BAD:
            raise bad_token(source, found.start(kind))
        if kind != END:
            tokens.append(Token(KINDS[kind], found[kind], found.start(kind)))
    return tokens


def integer_value(text: str) -> int | None:
    """The value of a number that is an integer, `16rFF` and `1e2` too; None for others.

    Of more than MOST_DIGITS digits none is made: Python itself refuses them.
    """
    found = re.fullmatch(r"(-?)(?:(\d+)r)?(-?)(\w+)", text)
    base = int(found[2] or 10) if found else 0
    whole = re.fullmatch(rf"([{digits_of(base)}]+)(?:[edq](\d+))?", found[4]) if base > 1 else None
    if not whole or len(whole[1]) > MOST_DIGITS:
        return None
    value = int(whole[1], min(base, 36)) * base ** int(whole[2] or 0)
    return -value if found[1] != found[3] else value
