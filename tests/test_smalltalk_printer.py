"""Printing trees: the same tree comes back, printing twice changes nothing, comments survive."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    BraceNode,
    CascadeNode,
    LiteralNode,
    MessageNode,
    MethodNode,
    ReturnNode,
    SendNode,
    VariableNode,
)
from scratchbook.smalltalk.parser import parse_expression, parse_method
from scratchbook.smalltalk.printer import format_expression, format_method


@pytest.mark.parametrize("text", [
    "a b c", "a + b c - 3", "(a + b) c", "a + (b + c)", "a + b + c", "a at: (b at: c)",
    "(a at: b) at: c", "(a at: b) + c", "a at: b + c put: d e", "a b; c", "a b: 1; + 2; c",
    "(a + b) c; d", "(a b; c) d", "a := b := c d", "(a := b) c", "a at: (b := c)", "^ a",
    "-3 abs", "a - -3", "a - 3", "[ ]", "[ :x | ]", "[ :x | x ]", "[ | t | t ]",
    "[ :x | | t | t ]", "{}", "{ a. b }", "#(1 $a foo #foo at:put: #(2) #[1] + true)", "#[1 2]",
    "'it''s'", "a value: [ b ] value: [ c ]", "(a b: c) d; e", "a == b", "#+ value",
])
def test_short_expressions_are_printed_as_a_person_writes_them(text):
    (tree,) = parse_expression(text)
    assert format_expression(tree) == text.replace("{}", "{ }")


def test_a_long_method():
    source = '''printOn: aStream
	"Print me."

	<script: 'x'>
	| first |
	"a note"
	first := true.
	self
		do: [ :each |
			"about the parts"
			first ifFalse: [ aStream space ].
			first := false ]
		separatedBy: [ aStream nextPutAll: 'a string that makes this line much too long' ].
	aStream
		nextPutAll: 'one two three four five';
		nextPutAll: 'six seven eight nine ten eleven twelve';
		yourself
	"the end"'''
    assert format_method(parse_method(source)) == source
    squeezed = source.replace("\n\t\t\t", " ").replace("\n\t\t", " ").replace(";\n", ";")
    assert format_method(parse_method(squeezed)) == source


names = st.sampled_from(["a", "bc", "self", "Object"])
leaves = st.one_of(
    names.map(VariableNode),
    st.sampled_from(["3", "-3", "16r1F", "1.5e3", "3s2"]).map(lambda s: LiteralNode("number", s)),
    st.sampled_from(["#+", "#at:put:", "#a"]).map(lambda s: LiteralNode("symbol", s)),
    st.sampled_from(["$ ", "$'", "$]"]).map(lambda s: LiteralNode("character", s)),
    st.just(LiteralNode("string", "'it''s\n'")))


def messages(values):
    return st.one_of(
        names.map(lambda name: (name, ())),
        st.tuples(st.sampled_from(["+", "-", "|", "||", "->", "<", ">"]), st.tuples(values)),
        st.tuples(st.just("at:"), st.tuples(values)),
        st.tuples(st.just("at:put:"), st.tuples(values, values)))


def larger(values):
    statements = st.lists(values | values.map(ReturnNode), max_size=3).map(tuple)
    variables = st.sampled_from([(), ("a",), ("a", "bc")])
    return st.one_of(
        st.builds(lambda to, part: SendNode(to, *part), values, messages(values)),
        st.builds(lambda to, parts: CascadeNode(to, tuple(MessageNode(*part) for part in parts)),
                  values, st.lists(messages(values), min_size=2, max_size=4)),
        st.builds(AssignmentNode, names.map(VariableNode), values),
        st.builds(BlockNode, variables, variables, statements),
        st.builds(BraceNode, statements))


@given(st.lists(st.recursive(leaves, larger, max_leaves=25), max_size=4))
def test_any_tree_comes_back(statements):
    method = MethodNode("foo:bar:", ("x", "y"), ("a",), (), tuple(statements))
    text = format_method(method)
    again = parse_method(text)
    assert again == method
    assert format_method(again) == text


def test_every_comment_survives_where_white_space_may_stand():
    source = ("foo: x\n\t<bar: 1>\n\t| a |\n"
              "\ta := [ :y | { y + 1. #(2 b) } ] value: x - 3; yourself.\n\t^ a")
    tree, rng = parse_method(source), random.Random(0)
    places = [at for at, character in enumerate(source) if character in " \n\t"]
    for _ in range(60):
        chosen = sorted(rng.sample(places, 4), reverse=True)
        text = source
        for at in chosen:
            text = text[:at] + f' "note {at}" ' + text[at:]
        printed = format_method(parse_method(text))
        again = parse_method(printed)
        assert again == tree and format_method(again) == printed
        assert sorted(each.source for each in again.comments) == sorted(
            f'"note {at}"' for at in chosen)


def test_a_long_sum_is_no_deep_one():
    source = "foo ^ 1" + " + 1" * 3_000
    tree = parse_method(source)
    assert format_method(tree).replace("\n\t", " ") == source
    assert tree == parse_method(source) and hash(tree) == hash(parse_method(source))
    assert tree != parse_method(source.replace("1 + 1", "2 + 1", 1))


def test_only_methods_are_formatted_as_methods():
    with pytest.raises(TypeError, match="VariableNode is no method"):
        format_method(VariableNode("x"))
