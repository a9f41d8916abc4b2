"""The Smalltalk parser: shapes of trees, what is accepted, what is refused and how it says so."""

import pytest

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    CascadeNode,
    LiteralNode,
    MessageNode,
    MethodNode,
    PragmaNode,
    ReturnNode,
    SendNode,
    VariableNode,
)
from scratchbook.smalltalk.parser import parse_expression, parse_method


def var(name: str) -> VariableNode:
    return VariableNode(name)


def number(source: str) -> LiteralNode:
    return LiteralNode("number", source)


def send(receiver, selector, *arguments) -> SendNode:
    return SendNode(receiver, selector, arguments)


def test_a_method_by_hand():
    method = parse_method(
        'between: low and: high\n\t"Am I?"\n\t<script>\n\t| ok |\n'
        "\tok := self >= low and: [self <= high].\n\t^ ok")
    inside = BlockNode((), (), (send(var("self"), "<=", var("high")),))
    assert method == MethodNode(
        "between:and:", ("low", "high"), ("ok",), (PragmaNode("script", ()),),
        (AssignmentNode(var("ok"), send(send(var("self"), ">=", var("low")), "and:", inside)),
         ReturnNode(var("ok"))))
    assert [comment.source for comment in method.comments] == ['"Am I?"']


def test_unary_before_binary_before_keyword():
    (tree,) = parse_expression("a b + c d * 2 at: e f - 1 put: g")
    left = send(send(send(var("a"), "b"), "+", send(var("c"), "d")), "*", number("2"))
    assert tree == send(left, "at:put:", send(send(var("e"), "f"), "-", number("1")), var("g"))


def test_a_cascade_goes_to_the_receiver_of_the_last_message():
    (tree,) = parse_expression("a b c: 1; d; + 2; -3; e: 4 f: 5")
    parts = [("c:", ("1",)), ("d", ()), ("+", ("2",)), ("-", ("3",)), ("e:f:", ("4", "5"))]
    messages = tuple(MessageNode(name, tuple(map(number, values))) for name, values in parts)
    assert tree == CascadeNode(send(var("a"), "b"), messages)


def test_positions_cut_the_text_of_every_node():
    source = "foo: x\n\t^ (self bar: (x - 1) baz) foo; at: #(1 $a) put: {x. -2}; yourself"
    for node in parse_method(source).walk():
        text = source[node.start:node.stop]
        assert text and text == text.strip()
        if not isinstance(node, MethodNode | MessageNode | PragmaNode | ReturnNode):
            assert parse_expression(text) == (node,), text
    cascade = parse_method(source).statements[0].value
    assert [source[part.start:part.stop] for part in cascade.messages] == [
        "foo", "at: #(1 $a) put: {x. -2}", "yourself"]


def test_the_error_names_line_column_and_remedy():
    with pytest.raises(SmalltalkSyntaxError) as caught:
        parse_method("foo\n\tx := 1\n\ty := 2")
    error = caught.value
    assert (error.line, error.column) == (3, 4)
    assert str(error).split("\n")[1:] == [
        "     y := 2", "       ^", "Is a period missing at the end of line 2?"]
