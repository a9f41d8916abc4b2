"""Syntax errors that a person can act on: where, what was expected, and what usually causes it.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re


def line_and_column(source: str, position: int) -> tuple[int, int]:
    r"""Both counted from 1; "\n", "\r\n" and a lone "\r" (old Squeak files) end a line."""
    before = source[:position].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class SmalltalkSyntaxError(ValueError):
    """Source that is not Smalltalk: `line` and `column` (from 1), `expected`, and a `hint` or "".

    The message shows the line with a caret below the place. An error of the parser's own, such as
    brackets nested too deeply, has the same form.
    """

    def __init__(self, source: str, position: int, expected: str, hint: str = "") -> None:
        self.source, self.position, self.expected, self.hint = source, position, expected, hint
        self.line, self.column = line_and_column(source, position)
        super().__init__(self.explanation())

    def __reduce__(self) -> tuple:
        return type(self), (self.source, self.position, self.expected, self.hint)

    def explanation(self) -> str:
        """The message: place and expectation, the line, a caret, the hint."""
        lines = self.source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        text, column = lines[self.line - 1].expandtabs(1), self.column
        if len(text) > 100:  # a window around the place, for lines that no terminal shows
            cut = max(0, column - 60)
            text, column = text[cut:cut + 100], column - cut
        parts = [f"line {self.line}, column {self.column}: {self.expected}",
                 f"    {text}", "    " + " " * (column - 1) + "^"]
        return "\n".join(parts + ([self.hint] if self.hint else []))


def usual_cause(source: str, texts: list[str], starts: list[int], at: int) -> str:
    """What most often lies behind an error at token `at`, or ""; it may stand lines above."""
    lines = [line_and_column(source, starts[each])[0] if each >= 0 else 1
             for each in (at - 2, at - 1, at)]
    for text, line in [(texts[at - 1], lines[1]), (texts[at], lines[2])]:
        if text[:1] == "'" and "\n" in text:
            return f"A string begins in line {line}: is its closing quote missing?"
    if texts[at] == ":=":
        if lines[0] < lines[1] and texts[at - 1].isidentifier():
            return f"Is a period missing at the end of line {lines[0]}?"
        return "Only a variable can be assigned to; = compares, := assigns."
    if texts[at] == ":" and texts[at + 1][:1] == "=":
        return "Assignment is written := without a blank."
    if lines[1] < lines[2] and re.match(r"[\w'#$^({[]", texts[at]):
        return f"Is a period missing at the end of line {lines[1]}?"
    return ""


BAD_STARTS = {
    "'": ("a string that never ends", "Close it with a single quote (inside a string, double it)."),
    '"': ("a comment that never ends", "Close it with a double quote."),
    "#": ("# without a literal after it", "A symbol (#size), an array #(1 2) or bytes #[1 2]."),
    "$": ("$ without a character after it", ""),
    "`": ("an expression for the compiler, which Pharo does not have", "Cuis has: dialect='cuis'."),
}


def bad_token(source: str, start: int) -> SmalltalkSyntaxError:
    """The error for a character that no token starts with."""
    first = source[start]
    if first.isdigit():
        return SmalltalkSyntaxError(source, start, "a number that cannot be read",
                                    "After a base and r stand its digits: 16rFF, 2r101.")
    expected, hint = BAD_STARTS.get(first, (f"the character {first!r} starts no token", ""))
    return SmalltalkSyntaxError(source, start, expected, hint)
