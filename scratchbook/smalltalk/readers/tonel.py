"""Tonel, the file format of Pharo: one class a file, each method in brackets behind its header.

    "A comment."
    Class { #name : 'Counter', #superclass : 'Object', #instVars : [ 'count' ] }

    { #category : 'accessing' }
    Counter >> increment [
        count := count + 1
    ]

All three versions are read alike: the first wrote names as symbols, the second as strings, the
third added `#package` and `#tag`; projects mix them file by file.

Source:   github.com/pharo-vcs/tonel, "Format"
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import closing_bracket, joined, line_of, words_of
from scratchbook.smalltalk.readers.ston import read_ston
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Record, Skipped

_COMMENT = r'\s*(?:"(?P<comment>[^"]*(?:""[^"]*)*)"\s*)?'
_HEAD = re.compile(_COMMENT + r"(?P<kind>Class|Trait|Extension|Package)\s*(?=\{)")
_METHOD = re.compile(r"\s*(?P<name>[\w.]+)(?P<side>\s+class(?:Side)?)?\s*>>\s*")
_OPENING = re.compile(r'(?:[^"\[]++|"[^"]*+")*+\[')  # a pattern may hold comments with brackets
LONGEST = 10_000  # characters of a message pattern with its comments
_NEXT_METHOD = re.compile(r"^\{\s*#category\b", re.M)
_SOMETHING = re.compile(r"\S")
_SLOT = re.compile(r"#?(\w+)")


def is_tonel(text: str) -> bool:
    """Whether a text starts as a Tonel file does: a comment or none, a kind, a map."""
    return _HEAD.match(text) is not None


def read_tonel(text: str, origin: Origin) -> Iterator[Record]:
    """The class, unless the file extends one, and the methods of a Tonel file, in its order.

    A method that cannot be read is skipped with its line, and reading goes on behind it.
    """
    origin = origin.speaking("pharo")
    head = _HEAD.match(text)
    if not head:
        yield origin.skipped("no Tonel: neither Class, Trait, Extension nor Package at the start")
        return
    facts: dict = {}
    try:
        facts, position = read_ston(text, head.end())
    except ValueError as error:
        yield origin.skipped(f"the class map is damaged: {error}")
        position = _resume(text, head.end())
    else:
        yield from _class(head, facts, origin)
    package = _word(facts, "package") or origin.folder
    while ahead := _SOMETHING.search(text, position):
        position = ahead.start()
        try:
            record, position = _method(text, position, package, origin)
            yield record
        except ValueError as error:
            yield origin.skipped(f"line {line_of(text, position)}: {error}")
            position = _resume(text, position)


def _resume(text: str, position: int) -> int:
    """Where the next method starts, as far as that can be seen; else the end of the text."""
    found = _NEXT_METHOD.search(text, position + 1)
    return found.start() if found else len(text)


def _class(head: re.Match, facts: dict, origin: Origin) -> Iterator[ClassRecord | Skipped]:
    if head["kind"] not in ("Class", "Trait"):
        return
    if not _word(facts, "name"):
        yield origin.skipped("the class map has no name")
        return
    package, tag = _word(facts, "package"), _word(facts, "tag")
    comment = (head["comment"] or "").replace('""', '"')
    yield origin.class_record(
        _word(facts, "name"),
        superclass=_word(facts, "superclass"),
        instance_variables=_names(facts, "instVars"),
        class_variables=_names(facts, "classVars"),
        class_instance_variables=_names(facts, "classInstVars"),
        pools=_names(facts, "pools"),
        comment=comment.removeprefix("\n").removesuffix("\n"),
        category="-".join(part for part in (package, tag) if part) or _word(facts, "category"),
        package=package or origin.folder,
        is_trait=head["kind"] == "Trait",
    )


def _word(facts: dict, key: str) -> str:
    value = facts.get(key)
    return value if isinstance(value, str) else ""


def _names(facts: dict, key: str) -> tuple[str, ...]:
    """Variables; a slot of a special kind, `#parts => WeakSlot`, is known by its name."""
    found = (_SLOT.match(value) for value in words_of(facts.get(key)))
    return tuple(match[1] for match in found if match)


def _method(text: str, position: int, package: str,
            origin: Origin) -> tuple[MethodRecord, int]:
    facts: dict = {}
    if text[position] == "{":
        facts, position = read_ston(text, position)
    header = _METHOD.match(text, position)
    opening = _OPENING.match(text, header.end(), header.end() + LONGEST) if header else None
    if not opening:
        raise ValueError(f"no method header, but {text[position:position + 40].strip()!r}")
    start = opening.end() - 1
    end = closing_bracket(text, start)
    pattern = text[header.end():start].removesuffix(" ")
    if end < 0:
        raise ValueError(f"a bracket or quote of {header['name']} >> {pattern} is never closed")
    body = text[start + 1:end].removesuffix("\n")
    return origin.method(joined(pattern, body), header["name"], bool(header["side"]),
                         protocol=_word(facts, "category"), package=package), end + 1
