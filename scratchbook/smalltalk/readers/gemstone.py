"""GemStone's topaz scripts, `.gs`: lines of commands, each followed by text up to a line `%`.

    category: 'testing'
    method: Cage
    isOpen
      ^ true
    %

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scratchbook.smalltalk.readers.class_messages import class_comment, class_definition, unquoted
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import line_of, selector_of, trimmed
from scratchbook.smalltalk.records import Record

_COMMAND = re.compile(
    r"^[ \t]*(?:(?P<method>method|classmethod):?+[ \t]*+(?P<name>[\w.]*+)[ \t]*+"
    r"|(?P<run>run|doit|printit|nbrun|runblock)[ \t]*"
    r"|category:[ \t]*(?P<category>'[^'\n]*(?:''[^'\n]*)*'|\S+)[ \t]*"
    r"|set[ \t]+class[ \t]+(?P<current>[\w.]+).*"
    r")$", re.M | re.I)
_END = re.compile(r"^%.*$", re.M)
_SET_CATEGORY = re.compile(r"\b(?P<name>[\w.]+)\s+category:\s*'(?P<category>[^']*)'")


def is_topaz(text: str) -> bool:
    """Whether a text holds a method as topaz scripts do, ended by `%`."""
    return _END.search(text) is not None and any(
        match["method"] for match in _COMMAND.finditer(text))


def read_topaz(text: str, origin: Origin) -> Iterator[Record]:
    """The methods of a script in its order, then the classes that its messages define."""
    origin = origin.speaking("gemstone")
    current = protocol = ""
    classes: dict[str, dict] = {}
    position = 0
    while command := _COMMAND.search(text, position):
        position = command.end()
        if command["category"]:
            protocol = unquoted(command["category"])
        elif command["current"]:
            current = command["current"]
        else:
            end = _END.search(text, position)
            if not end:
                yield origin.skipped(f"line {line_of(text, position)}: no '%' behind it")
                break
            body, position = text[position:end.start()], end.end()
            if command["run"]:
                _perform(body, classes)
                continue
            current = command["name"] or current
            source = trimmed(body)
            if selector_of(source):
                yield origin.method(source, current, command["method"].lower() == "classmethod",
                                    protocol=protocol, package=origin.folder)
            else:
                yield origin.skipped(f"line {line_of(text, command.start())}: no message pattern")
    for facts in classes.values():
        if "name" in facts:
            yield origin.class_record(**{**facts, "package": facts["package"] or origin.folder})


def _perform(message: str, classes: dict[str, dict]) -> None:
    """Note what a message says of classes."""
    if facts := class_definition(message.lstrip()):
        classes.setdefault(facts["name"], {}).update(facts)
    elif found := class_comment(message):
        classes.setdefault(found[0], {})["comment"] = found[1]
    for match in _SET_CATEGORY.finditer(message):
        if match["name"] in classes:
            classes[match["name"]]["category"] = match["category"]
