"""Chunk files: what Squeak, Cuis, Dolphin and GNU Smalltalk file out, `.changes` and `.sources`.

    Object subclass: #Counter instanceVariableNames: 'count' ... category: 'Zoo'!

    !Counter methodsFor: 'counting' stamp: 'ab 1/2/2003'!
    increment
        count := count + 1! !

A chunk ends at `!`; a `!` inside is doubled. A chunk is a message to run, unless `!` stands before
it: such a header says what the chunks behind it are, up to an empty one. Files of changes repeat a
method with every edit, so the last version wins and removals count.

Source:   Goldberg (1984), Smalltalk-80: The Interactive Programming Environment, chapter 23
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scratchbook.smalltalk.readers.class_messages import (
    class_comment,
    class_definition,
    class_side_variables,
    unquoted,
)
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import line_of, selector_of, trimmed
from scratchbook.smalltalk.records import Record, Skipped

_DOUBLED = re.compile(r"!!|!")
_PLAIN = re.compile(r"""'[^']*'|"[^"]*"|\$.|!""", re.S)  # GNU: a `!` in a string stands for itself
_SIDE = r"(?P<name>[\w.]+)(?P<side>\s+class(?:Side|Trait)?)?\s+"
_METHODS = re.compile(_SIDE + r"(?:methodsFor|methods|publicMethods|privateMethods)\b"
                              r"(?::\s*(?P<category>'[^']*(?:''[^']*)*'|#?\w+))?")
_COMMENT = re.compile(_SIDE + r"commentStamp:")
_CATEGORIES = re.compile(_SIDE + r"categoriesFor(?P<what>Methods|Class|:\s*#?(?P<selector>\S+))")
_PACKAGE = re.compile(r"\s*provides:\s*'(?P<name>[^']+)'")
_PACKAGE_NAME = re.compile(r"Package name: '(?P<name>[^']+)'")
_REMOVED = re.compile(_SIDE + r"removeSelector:\s*#?(?P<selector>\S+)")
_REMOVED_CLASS = re.compile(r"Smalltalk\s+removeClassNamed:\s*#?'?(?P<name>[\w.]+)")
_HEADER = re.compile(r"^!" + _SIDE + r"(?:methodsFor|methods|commentStamp|categoriesFor)\b", re.M)
_VISIBILITY = {"public", "private", "must strip", "must not strip"}
_DIALECTS = {"From Cuis": "cuis", "From Pharo": "pharo", "From Squeak": "squeak",
             "Dolphin Smalltalk": "dolphin", "Package name:": "dolphin", "GNU Smalltalk": "gnu",
             "provides:": "cuis"}


def is_chunks(text: str) -> bool:
    """Whether a text holds a header of chunks: methods, comments or categories of a class."""
    return _HEADER.search(text) is not None


def is_definition(text: str) -> bool:
    """Whether a text starts with a class definition, `!` behind it or not, and holds no header."""
    message = text.partition("!")[0]
    return bool(class_definition(message) or class_side_variables(message))


def chunk_dialect(text: str) -> str:
    """The Smalltalk that filed this out, as far as the first lines tell; else Squeak."""
    head = text[:2000]
    return next((dialect for mark, dialect in _DIALECTS.items() if mark in head), "squeak")


def read_chunks(text: str, origin: Origin) -> Iterator[Record]:
    """The classes, then the methods of a chunk file, each in its last version.

    What stands behind the last `!` is read as a message, unless it is a method that was cut off.
    """
    origin = origin.speaking(chunk_dialect(text))
    yield from _ChunkFile(text, origin).read()


class _ChunkFile:
    """The state of reading one file: a position, and what is known so far."""

    def __init__(self, text: str, origin: Origin) -> None:
        self.text, self.position, self.origin = text, 0, origin
        self.doubled = origin.dialect != "gnu"
        self.package = ""
        self.classes: dict[str, dict] = {}
        self.methods: dict[tuple[str, bool, str], tuple[str, str]] = {}
        self.problems: list[Skipped] = []

    def read(self) -> Iterator[Record]:
        while (chunk := self.next_chunk()) is not None:
            self.follow(chunk.strip())
        if not self.problems:
            self.perform(self.text[self.position:].strip())
        yield from self.problems
        yield from self.records()

    def next_chunk(self) -> str | None:
        marks = (_DOUBLED if self.doubled else _PLAIN).finditer(self.text, self.position)
        end = next((mark.start() for mark in marks if mark.group() == "!"), None)
        if end is None:
            return None
        chunk, self.position = self.text[self.position:end], end + 1
        return chunk.replace("!!", "!") if self.doubled else chunk

    def listed(self) -> Iterator[str]:
        """The chunks up to an empty one."""
        while (chunk := self.next_chunk()) is not None and chunk.strip():
            yield chunk

    def follow(self, chunk: str) -> None:
        """Read what a header announces, or note what a message does to classes and methods.

        Headers and messages cannot be taken for each other, so the `!` before a header, which
        reads as an empty chunk, needs no care.
        """
        if match := _METHODS.match(chunk):
            self.read_methods(match)
        elif match := _COMMENT.match(chunk):
            comment = self.next_chunk()
            if not match["side"] and comment is not None:
                self.classes.setdefault(match["name"], {})["comment"] = comment.strip("\n")
        elif match := _CATEGORIES.match(chunk):
            self.read_categories(match)
        elif match := _PACKAGE.match(chunk):
            self.package = match["name"]
        else:
            self.perform(chunk)

    def read_methods(self, header: re.Match) -> None:
        name, side = header["name"], bool(header["side"])
        protocol = unquoted(header["category"] or "")
        start = self.position
        for chunk in self.listed():
            source = trimmed(chunk)
            if selector := selector_of(source):
                self.methods[name, side, selector] = source, protocol
            else:
                self.problem(start, f"no message pattern: {source[:40]!r}")
            start = self.position
        if self.text.find("!", start) < 0 and self.text[start:].strip():
            self.problem(start, f"the file ends inside a method of {name}")

    def problem(self, position: int, reason: str) -> None:
        self.problems.append(
            self.origin.skipped(f"line {line_of(self.text, position)}: {reason}"))

    def read_categories(self, header: re.Match) -> None:
        """Dolphin says the protocols of methods, and the category of a class, after them."""
        name, side = header["name"], bool(header["side"])
        if header["what"] == "Class":
            category = next(iter([*self.listed()]), "")
            self.classes.setdefault(name, {})["category"] = category
        elif header["selector"]:
            self.file_under(name, side, header["selector"], [*self.listed()])
        else:
            while (selector := self.next_chunk()) is not None and selector.strip():
                self.file_under(name, side, selector.strip(), [*self.listed()])

    def file_under(self, name: str, side: bool, selector: str, categories: list[str]) -> None:
        if known := self.methods.get((name, side, selector)):
            protocol = next((word for word in categories if word not in _VISIBILITY), "")
            self.methods[name, side, selector] = known[0], protocol

    def perform(self, message: str) -> None:
        """Note what a message does to classes; any other is left alone."""
        if facts := class_definition(message):
            self.classes.setdefault(facts["name"], {}).update(facts)
        elif found := class_side_variables(message):
            self.classes.setdefault(found[0], {})["class_instance_variables"] = found[1]
        elif found := class_comment(message):
            self.classes.setdefault(found[0], {})["comment"] = found[1]
        elif match := _REMOVED.match(message):
            self.methods.pop((match["name"], bool(match["side"]), match["selector"]), None)
        elif match := _REMOVED_CLASS.match(message):
            self.classes.pop(match["name"], None)
            self.methods = {key: method for key, method in self.methods.items()
                            if key[0] != match["name"]}
        elif match := _PACKAGE_NAME.search(message):
            self.package = match["name"]

    def records(self) -> Iterator[Record]:
        folder = self.package or (self.origin.folder if self.origin.dialect == "dolphin" else "")
        for facts in self.classes.values():
            if "name" in facts:
                yield self.origin.class_record(
                    **{**facts, "package": facts["package"] or folder or facts["category"]})
        for (name, side, _), (source, protocol) in self.methods.items():
            facts = self.classes.get(name, {})
            package = folder or facts.get("package") or facts.get("category", "")
            if protocol.startswith("*"):
                package = package or protocol[1:]
            yield self.origin.method(source, name, side, protocol=protocol, package=package)
