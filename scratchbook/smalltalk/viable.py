"""Whether a piece of source can still become a method: what constrained decoding asks.

A beginning is viable when the parser's only complaint is that the source ends. The last token may
be unfinished (`'abc`, `16r`, `:` of `:=`), so that it is finished in the few ways there are, and
the parser is asked again. No second grammar: the parser that judges is the one that constrains.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.parser import parse_method

# how a source may end, and what would finish its last token
ENDINGS = (
    (re.compile(r"\w\Z"), (":",)),                # a name may become a keyword
    (re.compile(r":\Z"), ("=", " x")),            # the colon of := or of a block's parameter
    (re.compile(r"-\Z"), ("1",)),                 # a minus may begin a number
    (re.compile(r"[0-9]r-?\Z"), ("1",)),          # a base wants its digits
    (re.compile(r"#+\Z"), ("x", "(")),            # a symbol, an array
    (re.compile(r"\$\Z"), ("x",)),                # a character
    (re.compile(r"<\Z"), ("x",)),                 # a pragma
)


def is_method(source: str, dialect: str = "pharo") -> bool:
    """Whether the parser accepts a source as one whole method."""
    try:
        parse_method(source, dialect)
    except SmalltalkSyntaxError:
        return False
    return True


def is_viable(source: str, dialect: str = "pharo") -> bool:
    """Whether some continuation (or none) makes a source a method.

    Example:  is_viable("at: i put: v ^ array at:") holds, is_viable("at: i ) ") does not
    Raises:   ValueError for an unknown dialect
    """
    if not source.strip() or _ends_well(source, dialect):
        return True
    quoted = _open_quote(source)
    if quoted:
        return _ends_well(source + quoted, dialect)
    return any(_ends_well(source + more, dialect)
               for ending, finishes in ENDINGS if ending.search(source) for more in finishes)


def longest_method(source: str, dialect: str = "pharo") -> str:
    """The longest beginning of a source that is a whole method, or "" when there is none.

    What a decoder with a budget keeps when the budget ends inside a statement.
    """
    for cut in [len(source), *[found.start() for found in re.finditer(r"[\s.]", source)][::-1]]:
        if is_method(source[:cut], dialect):
            return source[:cut]
    return ""


def _ends_well(source: str, dialect: str) -> bool:
    """Accepted, or refused for nothing but its end."""
    try:
        parse_method(source, dialect)
    except SmalltalkSyntaxError as error:
        return error.position >= len(source)
    return True


def _open_quote(source: str) -> str:
    """The quote that a string or comment at the end of the source still lacks, or ""."""
    inside, at = "", 0
    while at < len(source):
        letter = source[at]
        if inside:
            inside = "" if letter == inside else inside
        elif letter == "$":
            at += 1
        elif letter in "'\"":
            inside = letter
        at += 1
    return inside
