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


# bodies of a method, between paragraph signs
ACCEPTED = """
^ 3-2 § ^ 3 -2 § ^ #(3 -2) § ^ a - -1 § ^ a -1 b § {1.2..3} § ^ 0x1F § ^ 3s § ^ 3sqrt § ^ 2r101e3
^ 16rFF § ^ -16r-FF § ^ 1e10 § a>-1 § a --> b § a->b § a--b § ^ $  value § ^ $' § ^ $]
Foo.Bar new § ^ #[0 255] § ^ #[] § ^ #() § ^ {} § ^ {1. 2.} § {. 1} § {^ 1} § ^ #foo:bar:
^ ##foo § ^ #'a b' § ^ #+ § ^ #(foo:bar: + #+ 1.5e3 true (a) [b] {c} ; . ^ := |)
^ #($) ')' "(" b) § ^ 'it''s' "x" , 'y' § .. § a. . b § ^ 1. ^ 2. b § a. ^ b. c § "only" §  § [:x]
[:x |] § [:x || t | t] § [:x | | t | t] § [||] § [| |] § [:x :y | x] § [: x | x] § ^ [] value
[^ 1] § |t| t § || § | a | a || b § <foo> ^ 1 § <foo: 1 bar: #(2)> § | t | <foo> t
<primitive: 60> § <primitive: x> § < + 3> § <foo: true> § <primitive: 'x' module: 'Y' error: ec>
<foo: #[1]> <bar> a § a b; c § a b: 1; c; + 2; -3; d: 4 e: 5 § (a b) c; d § a b. c d; e
super a; b § 3 + 4; * 2 § x := a b; c § self := 3 § x := y := z § (x := 3) foo § a true § a nil b
^ _ § _ := 3 § été ñ: 3 § a foo: [:x | x] bar: (b c: 1) § a == b | c § ^ a @ b
"""
REFUSED = """
^ - 3 § ^ 3 4 § ^ a 3 § ^ a 'b' § ^ #[256] § ^ #[-1] § ^ #[a] § ^ #[1.0] § ^ #(1 2 § ^ #(a #)
^ #: § ^ # foo § ^ #1 § |a b § | a||| a § | a | | b | a § | a :b | a § | nil | a § [:x y]
[:x | y § [:x:y | x] § [:true | 1] § [: | x] § [x |] § self; foo § (self foo); bar § a b; c d
a b; true § a b; § a b; ; c § (a b; c); d § 3; foo § a := b; c § (a := b c); d § true := 3
nil := 3 § 3 := 4 § a b := 3 § a + b := 3 § a foo: x := 3 § ^ ^ a § x := ^ a § (^ a) § := 3
a : = 3 § x := § ^ () § ^ (a. b) § [a) § (a] § {a) § ^ (a b § ^ [a} § [a § {a § a) § a] § a}
^ 'a § ^ "a § ' § " § ^ $ § ^ 16r § ^ 37r § ^ 5r7 § ^ 1e10001 § <foo ^ 1 § <foo: a> § <foo: {1}>
<foo:> § <> § <foo: 1 2> § <foo> bar> § <primitive: #(1)> § a foo: § a + § a foo: bar: 1
a foo:: 1 § + a § foo: 1 § ^ § a ^ b § a , , b § ` a ` § a # b § a [b] § a {b} § a #(b)
[:x | :y | x] § a (b) § {|a| a} § (|a| a) § a. <foo> § | a | | a foo § @ b § a $. b
"""


def cases(table: str) -> list[str]:
    return [case.strip(" ") for line in table.strip().split("\n") for case in line.split("§")]


@pytest.mark.parametrize("body", cases(ACCEPTED))
def test_accepted_as_pharo_does(body):
    assert isinstance(parse_method(f"foo\n\t{body}\n"), MethodNode)


@pytest.mark.parametrize("body", cases(REFUSED))
def test_refused_as_pharo_does(body):
    ending = "" if body.endswith("$") else "\n"
    with pytest.raises(SmalltalkSyntaxError):
        parse_method(f"foo\n\t{body}{ending}")


@pytest.mark.parametrize("pattern", [
    "foo", "+ x", "| x", "-> x", "at: a put: b", "at:a put:b", "true", "foo_bar", "_: x", "< x",
])
def test_message_patterns(pattern):
    method = parse_method(f"{pattern} ^ 1")
    assert method.selector == "".join(pattern.replace(":", ": ").split()[::2])
    assert method.statements == (ReturnNode(number("1")),)


@pytest.mark.parametrize("source", [
    "", "3", "#foo", "foo: ", "foo: 3", "+", "+ 3", "at: a put:", "at: true", "at: a: b", "(foo)",
    ":x", "^ 1", "'x'", '"only a comment"', "-1", "<foo> bar", "$a", "foo: #x", "[foo]",
])
def test_what_is_no_method(source):
    with pytest.raises(SmalltalkSyntaxError):
        parse_method(source)


@pytest.mark.parametrize(("dialect", "body"), [
    ("squeak", "x _ 3"), ("cuis", "x _ `Color white`"), ("cuis", "a b :: c: 3"),
    ("cuis", "<apicall: long 'f' (void*) module: 'm'>"), ("cuis", "^ #[1.2 2.4]"),
    ("gnu", "^ ##(1 + 2) + #{Foo.Bar} value"), ("gnu", "^ ##(| a | a := 1. a) foo"),
    ("gnu", "^ $<16r0418> asString"), ("dolphin", "^ $\\0 value"), ("cuis", "a b :: c: 3; d"),
    ("dolphin", "^ (Behavior._SizeMask)"),
    ("gnu", "^ Smalltalk.Foo new"), ("dolphin", "<stdcall: void foo dword* lpwstr*>\n^ self"),
    ("visualworks", "^ #{Core.Object} value"), ("gemstone", "<protected primitive: 123>"),
])
def test_dialects_go_beyond_pharo(dialect, body):
    method = parse_method(f"foo {body}", dialect)
    assert method.pragmas or len(method.statements) == 1
    if "Smalltalk.Foo" not in body and "##(|" not in body:  # two statements, a literal array
        with pytest.raises(SmalltalkSyntaxError):
            parse_method(f"foo {body}")


@pytest.mark.parametrize("opener", ["(", "[", "{", "#(", "x := ", "a b: (", "^ [ :x | {"])
def test_hostile_nesting_is_an_error_of_syntax(opener):
    with pytest.raises(SmalltalkSyntaxError, match="inside each other|expected") as caught:
        parse_method("foo " + opener * 100_000)
    assert "100" in str(caught.value) or opener[0] == "^"
    assert parse_method("foo " + "(" * 99 + "a" + ")" * 99).statements == (var("a"),)


@pytest.mark.parametrize(("body", "line", "column", "words"), [
    ("\n\tx := 'abc.\n\ty := 'def' size", 3, 11, "string"),
    ("\n\tx := 'abc.\n\ty foo: '3", 3, 10, "line 2: is its closing quote missing"),
    ("\n\t^ (a b: c\n", 3, 1, "It closes the ( in line 2, column 4"),
    ("\n\tself; bar", 2, 6, "A cascade goes to the receiver"),
    ("\n\ta : = 3", 2, 4, "without a blank"), ("\n\ta b := 3", 2, 6, "Only a variable"),
    ("\n\ta foo: 1\n\t#b size", 3, 2, "period missing at the end of line 2"),
    ("\r\ta foo: 1\r\t#b size", 3, 2, "period missing at the end of line 2"),
])
def test_errors_are_explained_to_a_person(body, line, column, words):
    with pytest.raises(SmalltalkSyntaxError) as caught:
        parse_method(f"foo{body}")
    error = caught.value
    assert (error.line, error.column) == (line, column)
    assert words in str(error)
    place = str(error).split("\n")[2]
    assert len(place) == 4 + column and place.endswith("^")


def test_the_caret_stays_in_sight_on_a_long_line():
    with pytest.raises(SmalltalkSyntaxError) as caught:
        parse_method("foo ^ " + "a , " * 500 + "3 4")
    first, text, caret, *_ = str(caught.value).split("\n")
    assert f"column {6 + 2000 + 3}" in first and len(text) <= 104
    assert text[len(caret) - 1] == "4"


def test_errors_can_be_pickled_for_other_processes():
    import pickle
    with pytest.raises(SmalltalkSyntaxError) as caught:
        parse_method("foo ^")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.line, again.expected) == (
        str(caught.value), caught.value.line, caught.value.expected)
