"""The dialects of Smalltalk, as far as their methods are written differently from Pharo's.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """Where a dialect's syntax goes beyond Pharo's.

    underscore: `_` alone assigns; dotted: `Smalltalk.Foo` is one name; compiled: `##(...)`,
    `#{...}` or a backquoted expression stands for the value that it had when compiled; chained:
    `::` sends to the whole expression before it; free_pragmas: between `<` and `>` stands what a
    foreign interface needs; free_bytes: other elements than bytes between `#[` and `]`.
    """

    underscore: bool = False
    dotted: bool = False
    compiled: bool = False
    chained: bool = False
    free_pragmas: bool = True
    free_bytes: bool = False


DIALECTS = {
    "pharo": Dialect(free_pragmas=False),
    "squeak": Dialect(underscore=True),
    "cuis": Dialect(underscore=True, compiled=True, chained=True, free_bytes=True),
    "gnu": Dialect(underscore=True, dotted=True, compiled=True),
    "dolphin": Dialect(dotted=True, compiled=True),
    "visualworks": Dialect(underscore=True, dotted=True, compiled=True),
    "gemstone": Dialect(underscore=True, free_bytes=True),
}
