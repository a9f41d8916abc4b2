"""VisualWorks' XML file-outs: `<st-source>` with classes, comments and methods.

    <st-source>
      <class><name>Cage</name><super>Core.Object</super><inst-vars>animals </inst-vars> ...</class>
      <methods><class-id>Zoo.Cage</class-id> <category>testing</category>
        <body package="Zoo" selector="isOpen">isOpen ^true</body></methods>
    </st-source>

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import selector_of, trimmed
from scratchbook.smalltalk.records import ClassRecord, Record


def is_visualworks(text: str) -> bool:
    """Whether a text is an XML file-out."""
    return "<st-source>" in text[:2000]


def read_visualworks(text: str, origin: Origin) -> Iterator[Record]:
    """The methods, then the classes of a file-out; up to the damage where it is no whole XML."""
    origin = origin.speaking("visualworks")
    classes: dict[str, ClassRecord] = {}
    comments: dict[str, str] = {}
    shared: dict[str, tuple[str, ...]] = {}
    package = ""
    parser = ElementTree.XMLPullParser(["end"])
    damage = None
    try:
        parser.feed(text.partition("?>")[2] if text.lstrip().startswith("<?xml") else text)
        parser.close()
    except ElementTree.ParseError as error:
        damage = f"damaged XML: {error}"
    for _, element in _finished(parser):
        if element.tag in ("package", "parcel") and not package:
            package = _text(element, "name") or (element.text or "").strip()
        elif element.tag == "class":
            record = _class(element, package, origin)
            classes[record.name] = record
        elif element.tag == "comment":
            comments[_last(_text(element, "class-id"))] = _text(element, "body")
        elif element.tag == "shared-variable":
            owner = _last(_text(element, "environment"))
            shared[owner] = *shared.get(owner, ()), _text(element, "name")
        elif element.tag == "methods":
            yield from _methods(element, package, origin)
    for name, record in classes.items():
        yield replace(record, comment=comments.get(name, ""),
                      class_variables=shared.get(name, ()))
    if damage:
        yield origin.skipped(damage)


def _finished(parser: ElementTree.XMLPullParser) -> Iterator[tuple]:
    try:
        yield from parser.read_events()
    except ElementTree.ParseError:  # said already
        return


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _last(path: str) -> str:
    """The class that a path like `Zoo.Cage` or `Zoo.Cage class` names."""
    return path.partition(" ")[0].rpartition(".")[2]


def _class(element: ElementTree.Element, package: str, origin: Origin) -> ClassRecord:
    named = _text(element, "attributes/package") or package
    return origin.class_record(
        _text(element, "name"), superclass=_text(element, "super"),
        instance_variables=tuple(_text(element, "inst-vars").split()),
        class_instance_variables=tuple(_text(element, "class-inst-vars").split()),
        pools=tuple(word for word in _text(element, "imports").split() if word != "private"),
        category=_text(element, "category"), package=named)


def _methods(element: ElementTree.Element, package: str, origin: Origin) -> Iterator[Record]:
    owner = _text(element, "class-id")
    name, side, protocol = _last(owner), owner.endswith(" class"), _text(element, "category")
    for body in element.findall("body"):
        source = trimmed((body.text or "").replace("\r\n", "\n").replace("\r", "\n"))
        if selector_of(source):
            yield origin.method(source, name, side, protocol=protocol,
                                package=body.get("package") or package)
        else:
            yield origin.skipped(f"no message pattern in a method of {name}: {source[:40]!r}")
