"""STON, Smalltalk's own JSON, as far as Tonel uses it for what it says about classes and methods.

    { #name : #Counter, #instVars : [ 'count' ], #category : 'Examples-Core' }

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r"""\s*(?:
    \#?'(?P<text>(?:[^'\\]|\\.|'')*)'        # 'string' or #'symbol'
  | \#(?P<symbol>[\w./*-]+)                  # #symbol
  | (?P<mark>[\[\]{}:,])
  | (?P<word>[\w.+-]+)                       # nil, true, 12
)""", re.X | re.S)
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})|\\(.)|''", re.S)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_WORDS = {"nil": None, "true": True, "false": False}


def read_ston(text: str, start: int = 0) -> tuple[Any, int]:
    """The value at `start` (dict, list, str, bool or None) and the position behind it.

    Symbols and strings are both read as `str`, numbers too: no key of Tonel's holds one.

    Raises:   ValueError with the position where the text stops being STON
    """
    kind, token, end = _next(text, start)
    if kind in ("text", "symbol"):
        return token, end
    if kind == "word":
        return _WORDS.get(token, token), end
    if token == "[":
        return _list(text, end)
    if token == "{":
        return _map(text, end)
    raise ValueError(f"no value at character {start}: {text[start:start + 20]!r}")


def _next(text: str, start: int) -> tuple[str, str, int]:
    match = _TOKEN.match(text, start)
    if not match:
        raise ValueError(f"neither a string nor a symbol at character {start}: "
                         f"{text[start:start + 20]!r}")
    kind = match.lastgroup
    token = match.group(kind)
    return kind, _ESCAPE.sub(_unescaped, token) if kind == "text" else token, match.end()


def _unescaped(match: re.Match) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return _LETTERS.get(match[2], match[2]) if match[2] else "'"


def _list(text: str, position: int) -> tuple[list, int]:
    values: list = []
    while True:
        kind, token, end = _next(text, position)
        if kind == "mark" and token == "]":
            return values, end
        if kind == "mark" and token == ",":
            position = end
            continue
        value, position = read_ston(text, position)
        values.append(value)


def _map(text: str, position: int) -> tuple[dict, int]:
    entries: dict = {}
    while True:
        kind, token, end = _next(text, position)
        if kind == "mark" and token == "}":
            return entries, end
        if kind == "mark" and token == ",":
            position = end
            continue
        key, position = read_ston(text, position)
        kind, token, position = _next(text, position)
        if token != ":" or kind != "mark" or not isinstance(key, str):
            raise ValueError(f"':' missing after the key {key!r} at character {position}")
        entries[key], position = read_ston(text, position)
