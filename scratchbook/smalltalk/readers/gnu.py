"""GNU Smalltalk's brackets: classes and methods nest as they do in other languages.

    Object subclass: Counter [
        | count |
        <comment: 'I count.'>
        Counter class >> new [ ^super new setUp ]
        increment [
            <category: 'counting'>
            count := count + 1
        ]
    ]
    Counter extend [ ... ]    Counter class >> of: n [ ... ]    Eval [ ... ]

Source:   GNU Smalltalk's manual, "The syntax"
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scratchbook.smalltalk.readers.class_messages import unquoted
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import (
    BLANK,
    NAME,
    closing_bracket,
    joined,
    line_of,
    pattern_end,
    trimmed,
)
from scratchbook.smalltalk.records import Record

_TEXT = r"'[^']*(?:''[^']*)*'"
_PATH = rf"{NAME}(?:\.{NAME})*"
_SPACE = re.compile(BLANK)
_TOP = re.compile(
    rf"(?P<superclass>{_PATH})\s+subclass:\s*#?(?P<new>{NAME})\s*\["
    rf"|(?P<extended>{_PATH})(?P<side>\s+class)?\s+extend\s*\["
    rf"|Namespace\s+current:\s*(?P<namespace>{_PATH})\s*\["
    rf"|(?P<eval>Eval)\s*\[")
_LOOSE = re.compile(rf"(?P<name>{_PATH})(?P<side>\s+class)?\s*>>\s*")
_VARIABLES = re.compile(r"\|([\w\s]*)\|")
_PRAGMA = re.compile(rf"<(?P<key>\w+):\s*(?P<value>(?:{_TEXT}|[^>'])*)>")
_CLASS_VARIABLE = re.compile(rf"(?P<name>{NAME})\s*:=")
_CLASS_SIDE = re.compile(rf"{_PATH}\s+class\s*\[")
_PROTOCOL = re.compile(
    rf"(?P<head>{BLANK}(?:<(?!category:)[^>]*>{BLANK})*?)<category:\s*(?P<name>{_TEXT})>"
    r"[ \t]*\n?")
_MARKS = re.compile(r"""'[^']*'|"[^"]*"|\$.|\[|[.!](?=\s|$)""", re.S)
_ANYWHERE = re.compile(
    rf"^[ \t]*(?:{_PATH}\s+subclass:\s*#?{NAME}|{_PATH}(?:\s+class)?\s+extend|Eval"
    rf"|Namespace\s+current:\s*{_PATH}|{_PATH}(?:\s+class)?\s*>>\s*+[^\[\n\"']++)\s*+\[", re.M)


def is_bracketed(text: str) -> bool:
    """Whether somewhere a line starts a class, a method or an `Eval` in GNU's brackets."""
    return _ANYWHERE.search(text) is not None


def read_bracketed(text: str, origin: Origin) -> Iterator[Record]:
    """The classes and methods of a file in GNU's brackets; statements between them are left out."""
    reader = _Brackets(text, origin.speaking("gnu"))
    yield from reader.top(0, len(text), origin.folder)


class _Brackets:
    def __init__(self, text: str, origin: Origin) -> None:
        self.text, self.origin = text, origin

    def past_blank(self, position: int) -> int:
        return _SPACE.match(self.text, position).end()

    def statement_end(self, position: int, end: int) -> int:
        """Behind the period (or `!`) of the statement at `position`."""
        while match := _MARKS.search(self.text, position, end):
            position = match.end()
            if match.group() in ".!":
                return position
            if match.group() == "[":
                closing = closing_bracket(self.text, match.start())
                position = closing + 1 if closing >= 0 else end
        return end

    def top(self, position: int, end: int, package: str) -> Iterator[Record]:
        """What stands between `position` and `end`, outside of any class."""
        while (position := self.past_blank(position)) < end:
            if match := _TOP.match(self.text, position):
                closing = closing_bracket(self.text, match.end() - 1)
                if closing < 0:
                    yield self.problem(position, "a bracket that is never closed")
                    closing = end
                if match["namespace"]:
                    yield from self.top(match.end(), closing, match["namespace"])
                elif not match["eval"]:
                    yield from self.class_body(match, closing, package)
                position = closing + 1
            elif match := _LOOSE.match(self.text, position):
                record, position = self.method(match.end(), end, match["name"],
                                               bool(match["side"]), package)
                yield record
            else:
                position = self.statement_end(position, end)

    def class_body(self, header: re.Match, end: int, package: str) -> Iterator[Record]:
        """A class, unless the header only extends one, and its methods."""
        name, side = header["new"] or header["extended"], bool(header["side"])
        facts: dict = {"superclass": header["superclass"] or "", "package": package}
        records: list[Record] = []
        position = header.end()
        while (position := self.past_blank(position)) < end:
            after = self.variable(position, end, facts)
            if after is None:
                loose = _LOOSE.match(self.text, position)
                owner = loose["name"] if loose else name
                record, after = self.method(
                    loose.end() if loose else position, end, owner,
                    bool(loose["side"]) if loose else side, package)
                records.append(record)
            position = after
        if header["new"]:
            yield self.origin.class_record(name, **facts)
        yield from records

    def variable(self, position: int, end: int, facts: dict) -> int | None:
        """Note what is said at `position` about the class itself; None at a method."""
        if match := _VARIABLES.match(self.text, position):
            self.add(facts, "instance_variables", match[1].split())
        elif match := _PRAGMA.match(self.text, position):
            if match["key"] in ("comment", "category") and match["value"] != "nil":
                facts[match["key"]] = unquoted(match["value"].strip())
            elif match["key"] == "import":
                self.add(facts, "pools", [match["value"].strip()])
        elif match := _CLASS_VARIABLE.match(self.text, position):
            self.add(facts, "class_variables", [match["name"]])
            return self.statement_end(match.end(), end)
        elif match := _CLASS_SIDE.match(self.text, position):
            closing = closing_bracket(self.text, match.end() - 1)
            for found in _VARIABLES.finditer(self.text, match.end(), max(closing, 0)):
                self.add(facts, "class_instance_variables", found[1].split())
            return closing + 1 if closing >= 0 else end
        else:
            return None
        return match.end()

    def add(self, facts: dict, key: str, names: list[str]) -> None:
        facts[key] = facts.get(key, ()) + tuple(names)

    def method(self, position: int, end: int, name: str, side: bool,
               package: str) -> tuple[Record, int]:
        """The method at `position`, or a note and a position behind the damage."""
        length = pattern_end(self.text[position:min(end, position + 2000)])
        opening = self.past_blank(position + max(length, 0))
        if length < 0 or self.text[opening:opening + 1] != "[":
            return (self.problem(position, f"no method of {name}: "
                                           f"{self.text[position:position + 30]!r}"),
                    self.statement_end(position, end))
        closing = closing_bracket(self.text, opening)
        if not 0 <= closing < end:
            return self.problem(position, f"a method of {name} is never closed"), end
        body = self.text[opening + 1:closing]
        protocol = _PROTOCOL.match(body)
        if protocol:
            body = protocol["head"].rstrip(" \t") + body[protocol.end():]
        source = trimmed(joined(self.text[position:opening].rstrip(), body))
        return self.origin.method(source, name, side, package=package,
                                  protocol=unquoted(protocol["name"]) if protocol else ""), (
            closing + 1)

    def problem(self, position: int, reason: str) -> Record:
        return self.origin.skipped(f"line {line_of(self.text, position)}: {reason}")
