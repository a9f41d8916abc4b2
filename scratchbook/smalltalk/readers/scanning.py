"""What all readers of Smalltalk files share: bytes to text, matching brackets, message patterns.

Nothing here understands Smalltalk's grammar. Three rules are enough to take a file apart: quotes
make strings, double quotes make comments, and `$` makes a literal of the character behind it, so
that the bracket of `$[` or of `'['` counts for nothing.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re

BLANK = r"""(?:\s|"[^"]*")*"""  # white space and comments
NAME = r"[^\W\d]\w*"
_KEYWORDS = rf"{NAME}:{BLANK}{NAME}(?:{BLANK}{NAME}:{BLANK}{NAME})*"
_BINARY = rf"""[^\w\s"'$#:;.()\[\]{{}}^`]+{BLANK}{NAME}"""
_PATTERN = re.compile(rf"{BLANK}(?:{_KEYWORDS}|{_BINARY}|{NAME}(?![\w:]))")
_COMMENT = re.compile(r'"[^"]*"')
_BRACKETS = re.compile(r"""'[^']*'|"[^"]*"|\$.|[\[\]'"]""", re.S)
_NO_LATIN = re.compile(rb"[\x80-\x9f]")


def decode(data: bytes) -> tuple[str, str]:
    r"""The text of a source file with "\n" between lines, and the name of its encoding.

    UTF-8 with or without its mark, UTF-32 or UTF-16; whatever is none of these was written on a
    machine with 256 letters. Bytes that Latin-1 has no letter for then tell an old Macintosh,
    which ends lines with a single "\r", from Windows.

    Raises:   ValueError when more than one character in a hundred is NUL: no text
    """
    text, encoding = _decoded(data)
    if text.count("\0") * 100 > len(text):
        raise ValueError("full of NUL characters: a binary file")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decoded(data: bytes) -> tuple[str, str]:
    wide = data.count(0) * 2 > len(data) and len(data) % 4 == 0
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ["utf-32-be"] * wide + ["utf-16"] * marked + ["utf-8"]:
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    if not _NO_LATIN.search(data):
        return data.decode("latin-1"), "latin-1"
    encoding = "mac-roman" if b"\r" in data and b"\n" not in data else "cp1252"
    return data.decode(encoding, "replace"), encoding


def closing_bracket(text: str, start: int) -> int:
    """Where the `]` stands that closes the `[` at `start`; -1 when there is none.

    None is either where a quote before it is never closed.
    """
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        mark = match.group()
        if mark == "[":
            depth += 1
        elif mark == "]":
            depth -= 1
            if depth == 0:
                return match.start()
        elif mark in ("'", '"'):
            return -1
    return -1


def pattern_end(source: str) -> int:
    """The length of the message pattern that a method's source starts with; -1 without one."""
    match = _PATTERN.match(source)
    return match.end() if match else -1


def selector_of(source: str) -> str:
    """The selector of a method: `at:put:` of `at: key put: value ...`; "" without a pattern."""
    pattern = _COMMENT.sub(" ", source[:max(pattern_end(source), 0)]).split(None)
    joined = " ".join(pattern)
    if ":" in joined:
        return "".join(re.findall(rf"{NAME}:", joined))
    name = re.match(rf"{NAME}|[^\w\s]+", joined)
    return name.group() if name else ""


def joined(pattern: str, body: str) -> str:
    """A message pattern and what stood in the brackets behind it; words do not grow together."""
    return pattern + ("" if not body or body[0].isspace() else " ") + body


def trimmed(text: str) -> str:
    """A method without the white space around it; a blank that a final `$` quotes stays."""
    source = text.strip()
    end = len(text) - len(text.lstrip()) + len(source)
    return source + text[end:end + 1] if source.endswith("$") else source


def words_of(value: object) -> list[str]:
    """The names in a list, or in one string such as `'a b'`; anything else holds none."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def line_of(text: str, position: int) -> int:
    """The number of the line, from 1, in which a position of the text lies."""
    return text.count("\n", 0, position) + 1
