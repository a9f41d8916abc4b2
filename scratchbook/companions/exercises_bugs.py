"""The check behind exercise 09.4: a bug is an edit that the parser refuses.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from scratchbook.companions.exercises_bytes import result_or_error
from scratchbook.smalltalk.viable import is_method
from scratchbook.teaching.checking import Property, exercise, expect

METHODS = ("double ^ self * 2", "at: i put: v\n\t^ array at: i put: (self check: v)",
           "each\n\tlist do: [:x | x run. x stop]", "total\n\t| sum |\n\tsum := 0.\n\t^ sum",
           "name ^ 'it''s'", "words ^ #(a b)", "+ other ^ other", "top\n\t^ self", "noop", "x",
           # one deletion alone breaks these: a blank, a letter, an early one, a digit, the first
           "radix ^ 16 r ", "sum ^ aa + a", "+ o\n\t^ other and another",
           "numberOfDaysInAWeek\n\t^ 7", "x ^ self",
           "+ ab ^ cd")      # and here only two together would


# @ stands for a name, 9 for a digit: an answer cannot know such methods by heart
PATTERNS = ("@ ^ @ @ * 9", "@: @1 @: @2\n\t^ @ @: @1 @: (self @: @2)", "+ @1\n\t^ @1 @ and",
            "@\n\t| @1 |\n\t@1 := 9.\n\t@ do: [:@2 | @2 @. @1 @].\n\t^ @1", "@ ^ #(@ @ 9)",
            "@ ^ '@ ''@'", "@", "@ ^ @1 + @1", "@\n\t^ self", "@\n\t^ 99 @ ")


def _some_methods(draw: random.Random) -> list[str]:
    """Three methods of each pattern; @1 is the same name everywhere in one of them."""
    def filled(pattern: str) -> str:
        names: dict[str, str] = {}

        def name(match: re.Match) -> str:
            fresh = "".join(draw.choices("bcdghjkmpwz", k=draw.randrange(2, 9)))
            return names.setdefault(match[1], fresh) if match[1] else fresh

        return re.sub("9", lambda _: str(draw.randrange(10)), re.sub("@([12]?)", name, pattern))

    return [filled(pattern) for pattern in PATTERNS for _ in range(3)]


def _deletions(source: str) -> list[str]:
    return [source[:at] + source[at + 1:] for at in range(len(source))]


def _bugs(source: str) -> list[str]:
    return [each for each in _deletions(source) if not is_method(each)]


def _is_right(source: str, got: object) -> bool:
    bugs = _bugs(source)
    return isinstance(got, str) and got in bugs if bugs else got is None


@exercise
def break_method(answer: Callable) -> Iterator[Property]:
    """09.4: a bug is an edit that the parser refuses."""
    for source in METHODS:
        got, bugs = answer(source), _bugs(source)
        yield expect(
            f"{source!r}: {'a bug' if bugs else 'no deletion breaks it, so None'}",
            _is_right(source, got),
            (got is None, "there is a character without which it is no method"),
            (not bugs and got in _deletions(source),
             f"{got!r} is a method: return None where every deletion leaves one"),
            (not bugs, f"every deletion leaves a method: return None, not {got!r}"),
            (not isinstance(got, str), f"a text is asked for, not {type(got).__name__}"),
            (got == source, "nothing was left out"),
            (got not in _deletions(source), "that is more than one character left out, or "
                                            "another edit"),
            (True, f"{got!r} is still a method: ask `is_method` before you call it a bug"))
    fresh = ((source, result_or_error(answer, source))
             for source in _some_methods(random.Random()))
    wrong = next((f"for {source!r} you return {got!r}, and "
                  f"{_bugs(source)[0]!r} is a bug" if _bugs(source) else
                  f"for {source!r} you return {got!r}, and no deletion breaks it: return None"
                  for source, got in fresh if not _is_right(source, got)), "")
    yield expect("30 methods more, drawn anew at every check", not wrong, (True, wrong))
