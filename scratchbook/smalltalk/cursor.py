"""Where a parser stands among the tokens: reading one, splitting one, failing at one.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scratchbook.smalltalk import errors, lexer
from scratchbook.smalltalk.dialects import DIALECTS

MAX_DEPTH = 100  # brackets inside brackets; the deepest of 370,000 real methods has 28


class Cursor:
    """The tokens of one source and how far they are read.

    Every method that reads something starts at token `at`, leaves `at` behind what it read, and
    returns the node, whose `start` is the first token's (an opening parenthesis counts).
    """

    __slots__ = ("source", "dialect", "kinds", "texts", "starts", "comments", "at", "depth")

    def __init__(self, source: str, dialect: str = "pharo") -> None:
        self.source = source
        self.kinds, self.texts, self.starts, self.comments = lexer.scan(source, dialect)
        self.dialect = DIALECTS[dialect]
        self.at = self.depth = 0

    def guarded(self, read: Callable[[], Any]) -> Any:
        """What `read` returns; when the caller left too little stack for it, a syntax error."""
        try:
            return read()
        except RecursionError:
            self.check_depth(MAX_DEPTH + 1)

    def error(self, expected: str, hint: str = "") -> errors.SmalltalkSyntaxError:
        """The error at this token."""
        at = self.at
        if self.kinds[at] == lexer.BAD:
            return errors.bad_token(self.source, self.starts[at])
        hint = hint or errors.usual_cause(self.source, self.texts, self.starts, at)
        found = f"'{self.texts[at]}'" if self.texts[at] else "the end of the source"
        return errors.SmalltalkSyntaxError(
            self.source, self.starts[at], f"{expected} expected, {found} found", hint)

    def check_depth(self, depth: int) -> None:
        """Refuses what would use up Python's own stack, here or in what walks the tree later."""
        if depth > MAX_DEPTH:
            raise errors.SmalltalkSyntaxError(
                self.source, self.starts[self.at], "too many levels inside each other",
                f"The parser reads {MAX_DEPTH} brackets in brackets at the most.")

    def take(self) -> str:
        """The text of this token, which is read now."""
        self.at += 1
        return self.texts[self.at - 1]

    def name(self) -> str:
        if self.kinds[self.at] != lexer.NAME:
            raise self.error("the name of a parameter")
        return self.take()

    def stop(self) -> int:
        """Where the token that was read last ends."""
        return self.starts[self.at - 1] + len(self.texts[self.at - 1])

    def bar(self) -> bool:
        """Reads one bar, also where the token is a run of operators that begins with it."""
        at = self.at
        if self.kinds[at] != lexer.BINARY or self.texts[at][0] != "|":
            return False
        if self.texts[at] == "|":
            self.at += 1
        else:
            self.texts[at] = self.texts[at][1:]
            self.starts[at] += 1
        return True

    def minus(self) -> bool:
        """Whether a negative number stands here, which is split: an operand came before it."""
        at = self.at
        if self.kinds[at] != lexer.NUMBER or self.texts[at][0] != "-":
            return False
        self.texts[at] = self.texts[at][1:]
        self.starts[at] += 1
        return True

    def closed(self, closer: str, start: int) -> int:
        """Reads a closer and returns where it ends; the error names the opener's place."""
        if self.texts[self.at] != closer:
            line, column = errors.line_and_column(self.source, start)
            raise self.error(closer, hint=f"It closes the {self.source[start]} "
                                          f"in line {line}, column {column}.")
        self.at += 1
        return self.starts[self.at - 1] + 1
