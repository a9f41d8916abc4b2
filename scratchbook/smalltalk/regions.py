"""Which part of a method a piece of its source belongs to: header, pragma, temporaries, body.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scratchbook.smalltalk.lexer import Token, tokenize
from scratchbook.smalltalk.parser import parse_method

REGIONS = ("header", "pragma", "temporaries", "body", "comment")


def token_regions(source: str, dialect: str = "pharo") -> list[tuple[Token, str]]:
    """Every token of a method with its region.

    Raises:   SmalltalkSyntaxError when the source is no method
    """
    tree = parse_method(source, dialect)
    pragmas = [(pragma.start, pragma.stop) for pragma in tree.pragmas]
    found, header, bars = [], _words_in_header(tree.selector), 0
    for token in tokenize(source, dialect):
        if token.kind == "comment":
            region = "comment"
        elif header:
            header, region = header - 1, "header"
        elif any(start <= token.start < stop for start, stop in pragmas):
            region = "pragma"
        elif bars < 2 and (bars == 1 or token.text.startswith("|")):
            bars, region = bars + token.text.count("|"), "temporaries"
        else:
            bars, region = 2, "body"
        found.append((token, region))
    return found


def _words_in_header(selector: str) -> int:
    """A keyword has a parameter behind it and so has an operator; a unary selector stands alone."""
    return 2 * selector.count(":") or (1 if selector[0].isalpha() or selector[0] == "_" else 2)


def piece_regions(source: str, pieces: Iterable[str], dialect: str = "pharo"
                  ) -> Iterator[tuple[str, str]]:
    """The pieces that `source` was cut into, each with the region of its first letter or mark.

    A piece of white space belongs to what follows it; behind the last token, to the body.

    Raises:   SmalltalkSyntaxError when the source is no method
    """
    ends = [(token.start + len(token.text), region)
            for token, region in token_regions(source, dialect)] + [(len(source), "body")]
    place, at = 0, 0
    for piece in pieces:
        first = place + len(piece) - len(piece.lstrip())
        while at < len(ends) - 1 and ends[at][0] <= first:
            at += 1
        yield piece, ends[at][1]
        place += len(piece)
