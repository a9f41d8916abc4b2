"""FileTree and its relatives: one method a file, in folders named after package, class and side.

    Zoo.package/Cage.class/instance/add..st          first line the protocol, the rest the method
    Zoo.package/Cage.class/instance/adding/add_.st   the folder is the protocol (Pharo up to 6)
    Zoo.package/extension/Cage/instance/add_.st      a method that Zoo adds to another's class
    Zoo.package/Cage.class/instance/add..st          a comment with "category: adding" (Cypress)
    Cage/instance/adding/add-3A-.cs                  one change set a method (Pharo 1)

File names are mangled each time in another way: the selector is read from the method instead.

Source:   github.com/dalehenrich/filetree; github.com/CampSmalltalk/Cypress
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from scratchbook.smalltalk.readers.class_messages import class_definition
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import selector_of, words_of
from scratchbook.smalltalk.records import Record

_IN_PACKAGE = r"(?:^|/)(?P<package>[^/]+)\.package/"
_CLASS_FOLDER = r"(?P<name>[^/]+)\.(?P<kind>class|trait|extension)/"
_SIDE = r"(?P<side>instance|class)/(?:(?P<protocol>[^/]+)/)?[^/]+"
_METHOD_PATHS = [re.compile(form) for form in (
    _IN_PACKAGE + _CLASS_FOLDER + _SIDE + r"\.st$",
    _IN_PACKAGE + r"(?P<kind>extension)/(?P<name>[^/]+)/" + _SIDE + r"\.st$",
    r"(?:^|(?P<package>[^/]+)/)(?P<name>[^/]+)/(?P<kind>)" + _SIDE + r"\.cs$",
)]
_CLASS_PATH = re.compile(_IN_PACKAGE + _CLASS_FOLDER +
                         r"(?P<file>properties\.json|definition\.st)$")
_COMMENT_PATH = re.compile(_IN_PACKAGE + r"[^/]+\.(?:class|trait)/README\.md$")
_NOTICE = re.compile(r'\s*"\s*(?:notice|category):[^"]*?category:[ \t]*(?P<category>[^"\n]*)\n?\s*"'
                     r"[ \t]*\n?")
_MANGLED = re.compile(r"-([0-9A-F]{2})-")


def is_method_path(path: str) -> bool:
    """Whether a file holds one method, going by the folders that it lies in."""
    return any(form.search(path) for form in _METHOD_PATHS)


def is_class_path(path: str) -> bool:
    """Whether a file describes a class: `properties.json` or `definition.st` in its folder."""
    return _CLASS_PATH.search(path) is not None


def is_comment_path(path: str) -> bool:
    """Whether a file is the `README.md` of a class: its comment."""
    return _COMMENT_PATH.search(path) is not None


def read_method_file(text: str, origin: Origin) -> Iterator[Record]:
    """The one method of a file; its class, side and package are said by the path of `origin`."""
    place = next(filter(None, (form.search(origin.path) for form in _METHOD_PATHS)))
    package = place["package"] or ""
    notice = _NOTICE.match(text)
    if place["protocol"]:
        protocol, source = _MANGLED.sub(_unmangled, place["protocol"]), text
    elif origin.path[:place.start("name")].endswith("/extension/"):
        protocol, source = f"*{package}", text
    elif notice:
        protocol, source = notice["category"].strip(), text[notice.end():]
    else:
        protocol, _, source = text.partition("\n")
    if selector_of(source):
        yield origin.method(source.removesuffix("\n"), place["name"], place["side"] == "class",
                            protocol=protocol.strip(), package=package)
    else:
        yield origin.skipped(f"no message pattern: {source[:40]!r}")


def _unmangled(match: re.Match) -> str:
    return chr(int(match[1], 16))


def read_class_file(text: str, comment: str, origin: Origin) -> Iterator[Record]:
    """The class that `properties.json` or `definition.st` tells of; nothing for an extension.

    `comment` is the text of the `README.md` beside it, "" where there is none.
    """
    place = _CLASS_PATH.search(origin.path)
    if place["kind"] == "extension":
        return
    facts = _properties(text) if place["file"].endswith("json") else class_definition(text)
    if facts is None:
        yield origin.skipped("no class definition")
        return
    facts = {**facts, "name": place["name"], "package": place["package"],
             "is_trait": place["kind"] == "trait" or facts.get("is_trait", False)}
    yield origin.class_record(**facts, comment=comment.strip("\n"))


def _properties(text: str) -> dict | None:
    """The fields of `properties.json`.

    Raises:   ValueError when the text is no JSON
    """
    read = json.loads(text)
    if not isinstance(read, dict):
        return None
    lists = {"instance_variables": "instvars", "class_variables": "classvars",
             "class_instance_variables": "classinstvars", "pools": "pools"}
    facts: dict = {field: tuple(words_of(read.get(key))) for field, key in lists.items()}
    for field, key in (("superclass", "super"), ("category", "category")):
        facts[field] = value if isinstance(value := read.get(key), str) else ""
    return facts
