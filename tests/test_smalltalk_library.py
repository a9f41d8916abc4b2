"""The class library in data/smalltalk: its methods parse, its names are declared."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

from scratchbook.smalltalk import nodes
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk.writers import write_chunks

LIBRARY = Path(__file__).parents[1] / "data" / "smalltalk"
CHUNKED = "Course-Calendar"
KERNEL = {"Array", "Character", "Collection", "Dictionary", "Error", "Float", "KeyNotFound",
          "Magnitude", "Object", "OrderedCollection", "Set", "SmallInteger", "String", "TestCase",
          "WriteStream", "ZeroDivide"}
PSEUDO = {"self", "super", "thisContext"}


@cache
def library():
    records = list(read_folder(LIBRARY, "course", "MIT",
                               wanted=lambda path: path.endswith(".class.st")))
    classes = {each.name: each for each in records if isinstance(each, ClassRecord)}
    methods = [each for each in records if isinstance(each, MethodRecord)]
    assert len(classes) + len(methods) == len(records)
    return classes, methods


def declared(method: MethodRecord) -> set[str]:
    """The variables of the class and its ancestors that a method of that side may name."""
    classes, _ = library()
    names, record = set(), classes.get(method.class_name)
    while record:
        mine = record.class_instance_variables if method.class_side else record.instance_variables
        names |= {*mine, *record.class_variables}
        record = classes.get(record.superclass)
    return names


def free_names(node: nodes.Node, known: set[str]) -> set[str]:
    if isinstance(node, nodes.VariableNode):
        return {node.name} - known
    if isinstance(node, nodes.BlockNode | nodes.MethodNode):
        known = known | set(node.parameters) | set(node.temporaries)
    return set().union(*(free_names(child, known) for child in node.children()))


def test_size():
    classes, methods = library()
    assert sum(len(method.source.encode()) for method in methods) >= 150_000
    assert len(classes) >= 100 and len(methods) >= 1_500
    assert all(record.comment for record in classes.values())


def test_names_are_declared_and_classes_known():
    classes, methods = library()
    known = PSEUDO | KERNEL | set(classes)
    assert {record.superclass for record in classes.values()} <= known
    for method in methods:
        free = free_names(parse_method(method.source), known | declared(method))
        assert not free, (method.class_name, method.source, free)


def test_no_body_is_written_twice():
    _, methods = library()
    bodies = Counter(re.sub(r"\s+", " ", method.source.partition("\n")[2]).strip()
                     for method in methods)
    assert not [body for body, count in bodies.items() if count > 1 and len(body) > 60]


def test_chunks_hold_the_same_as_tonel(tmp_path):
    """The shipped file-out is what the writer makes, and reads back to the same records."""
    classes, methods = library()
    mine = [each for each in classes.values() if each.package == CHUNKED]
    theirs = [each for each in methods if each.package == CHUNKED]
    text = (LIBRARY / f"{CHUNKED}.st").read_text(encoding="utf-8")
    assert text == write_chunks(mine, theirs)
    (tmp_path / "Course-Calendar.st").write_text(text, encoding="utf-8")
    back = list(read_folder(tmp_path, "course", "MIT"))
    said = Counter((each.class_name, each.class_side, each.protocol, each.source.strip())
                   for each in back if isinstance(each, MethodRecord))
    assert said == Counter((each.class_name, each.class_side, each.protocol, each.source.strip())
                           for each in theirs)
    assert {(each.name, each.instance_variables, each.comment) for each in back
            if isinstance(each, ClassRecord)} == {
                (each.name, each.instance_variables, each.comment) for each in mine}
