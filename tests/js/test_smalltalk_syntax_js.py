"""The page's Smalltalk parser gives the trees and the refusals of the package's own."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook.smalltalk import nodes
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk.viable import is_viable
from tests.node import passed, run_figure

LIBRARY = Path(__file__).resolve().parents[2] / "data" / "smalltalk"
CORNERS = [
    "foo ^ 3 - -2",
    "foo ^ 3-2",
    "foo ^ #(3 -2 foo:bar: + #+ (1 2) [1] #[1 255] true := ; | ^ $a)",
    "foo ^ {1.2..3}",
    "foo ^ 0x1F",
    "foo ^ 16r1e2 + 2r1e2 + -16rFF + 16r-FF + 3.14s2 + 3s + 3s2",
    "foo ^ 1e99999",
    "foo ^ 12.5e-10 + 1.",
    "foo ^ 36rZZ + 37r1",
    "foo ^ #[256]",
    "foo ^ #[16rFF 1e2]",
    "foo [:a || t | a] value",
    "foo | | ^ 1",
    "foo || ^ 1",
    "foo [:x] value. [:x | ] value",
    "foo <primitive: 60 error: ec> <a: #(1) b: $c> ^ 1",
    "foo <primitive: #x module: 'y'>",
    "foo <foo bar: 1>",
    "foo | a | <foo> | b | ^ 1",
    "+ other ^ self > - other",
    "at: x put: y",
    'foo ^ $\' , \'\'\'\' , \'"\', "it\'s" $"',
    "foo ^ 'never closed",
    'foo ^ "never closed',
    "foo ^ # a",
    "foo (self foo); bar",
    "foo self; foo",
    "foo self a; + 1; - 2; b: 3; -4; yourself",
    "foo ^ a := b := c",
    "foo ^ 1. ^ 2. . .",
    "foo ^ #foo:bar:baz , ##foo , #+ , #'a b' , #foo:: , #a:b",
    "foo ^ a ==> b",
    "foo ^ médiatrice + ñandú",
    "foo 1 := 2",
    "foo ^ ^ 1",
    "foo ^",
    "foo ^ - 3",
    "foo ^ x -",
    "",
    "  ",
    "foo: ",
    "true ^ false nil",
    "foo ^ a true",
    "foo ^ a: ",
    "foo a :=b",
    "foo a: =b",
    "foo [:x | | y | y := x. [y]] value)",
]


def plain(node: nodes.Node) -> list:
    """A tree as nested lists: kind, text, names, children."""
    name = type(node).__name__.removesuffix("Node").lower()
    simple = {"literalarray": ["array", "#()"], "bytearray": ["bytes", "#[]"],
              "brace": ["brace", "{}"], "block": ["block", "[]"], "cascade": ["cascade", ";"],
              "assignment": ["assignment", ":="], "return": ["return", "^"]}
    if isinstance(node, nodes.LiteralNode):
        return [node.kind, node.source]
    found = simple.get(name) or [name, getattr(node, "selector", None) or getattr(node, "name", "")]
    if isinstance(node, (nodes.BlockNode, nodes.MethodNode)):
        found = [*found, list(node.parameters), list(node.temporaries)]
    return [*found, *map(plain, node.children())]


def case(source: str) -> dict:
    try:
        tree, position = plain(parse_method(source)), None
    except SmalltalkSyntaxError as error:
        tree, position = None, error.position
    return {"source": source, "tree": tree, "position": position, "viable": is_viable(source)}


def test_smalltalk_syntax(tmp_path):
    draw = random.Random(0)
    library = [record.source for record in read_folder(LIBRARY, "course")
               if isinstance(record, MethodRecord)]
    cases = [case(source) for source in CORNERS + draw.sample(library, 150)]
    while sum(each["tree"] is None for each in cases) < 250:  # one character gone, or the end
        source = draw.choice(library)
        at = draw.randrange(len(source))
        cases += [case(source[:at] + source[at + 1:]), case(source[:at])]
    assert sum(each["tree"] is not None for each in cases) > 250
    printed = run_figure("smalltalk_syntax", tmp_path, cases)
    assert passed(printed) == 3
