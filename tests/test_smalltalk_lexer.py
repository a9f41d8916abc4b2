"""The Smalltalk lexer: sixty corners of the lexical syntax, each with the tokens Pharo sees."""

import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import DIALECTS, KINDS, integer_value, scan, tokenize
from scratchbook.smalltalk.parser import parse_method

SHORT = {"name": "n", "keyword": "k", "punctuation": "p", "constant": "t", "number": "#",
         "assign": "=", "binary": "b", "symbol": "s", "string": "'", "compiled": "!",
         "array": "A", "bytes": "B", "character": "$", "comment": '"'}

# source, what its tokens are, and the texts when they are not what white space separates
CASES = [
    ("foo", "n"), ("foo_bar1 _ _x", "nnn"), ("at: put:", "kk"), ("at:put:", "kk", ["at:", "put:"]),
    ("x := 3", "n=#"), ("x:=3", "n=#", ["x", ":=", "3"]), ("at:=3", "n=#", ["at", ":=", "3"]),
    ("true false nil truely", "tttn"), ("nil: nilable", "kn"), ("self super thisContext", "nnn"),
    ("3 -3 3.14 0.5", "####"), ("16rFF 16rff -16rFF 16r-FF", "####"), ("2r101e3 36rZZ", "##"),
    ("16rFFe2", "#"), ("3s 3s2 3.14s2 1.5s", "####"), ("1e10 1.0e-10 1d2 1q2 1e10000", "#####"),
    ("3sqrt", "#n", ["3", "sqrt"]), ("3e", "#n", ["3", "e"]), ("0x1F", "#n", ["0", "x1F"]),
    ("2i", "#n", ["2", "i"]), ("1_000", "#n", ["1", "_000"]), ("1. 2.", "#p#p", [*"1.2."]),
    ("1..3", "#pp#", ["1", ".", ".", "3"]), ("1.2..3", "#pp#", ["1.2", ".", ".", "3"]),
    ("3-2", "##", ["3", "-2"]), ("3 - 2", "#b#"), ("a-b", "nbn", ["a", "-", "b"]),
    ("a--2", "nb#", ["a", "--", "2"]), ("a>-1", "nb#", ["a", ">-", "1"]), ("- 3", "b#"),
    ("-> == >> ~= <= // \\\\ ==> --|> ~~> |", "b" * 11), ("||", "b"), ("a || b", "nbn"),
    ("^x!", "pnb", ["^", "x", "!"]), ("[:x|x]", "ppnbnp", [*"[:x|x]"]),
    ("()[]{}.;", "pppppppp", [*"()[]{}.;"]), ("x :: y", "nppn", ["x", ":", ":", "y"]),
    ("$a $' $\" $[ $| $$ $:", "$" * 7), ("$ x", "$n", ["$ ", "x"]), ("$\n", "$", ["$\n"]),
    ("'a' 'it''s' ''", "'''"), ("'two\nlines'", "'", ["'two\nlines'"]), ("'\"'", "'"),
    ("#foo #foo:bar: #+ #->", "ssss"), ("#'quoted symbol'", "s", ["#'quoted symbol'"]),
    ("##foo #_x #at:put", "sss"), ("#foo:=", "sb", ["#foo:", "="]), ("#+x", "sn", ["#+", "x"]),
    ("#(1 2)", "A##p", ["#(", "1", "2", ")"]), ("#[1 2]", "B##p", ["#[", "1", "2", "]"]),
    ("##(1)", "A#p", ["##(", "1", ")"]), ("{1. 2}", "p#p#p", [*"{1.2}"]),
    ('"one" x "two"', '"n"'), ('"a ""b"" c"', '"""', ['"a "', '"b"', '" c"']), ('"\'"', '"'),
    ("<primitive: 60>", "bk#b", ["<", "primitive:", "60", ">"]), ("été médiatriceDe:", "nk"),
    ("a·b × c", "nbnbn", ["a", "·", "b", "×", "c"]), ("", ""), (" \t\r\n\f\0", "", []),
]


@pytest.mark.parametrize(("source", "kinds", "texts"), [(*row, None)[:3] for row in CASES])
def test_tokens(source, kinds, texts):
    tokens = tokenize(source)
    assert [token.text for token in tokens] == (source.split() if texts is None else texts)
    assert "".join(SHORT[token.kind] for token in tokens) == kinds
    assert all(source.startswith(token.text, token.start) for token in tokens)


@pytest.mark.parametrize(("source", "start", "word"), [
    ("x 'abc", 2, "string"), ('x "abc', 2, "comment"), ("# foo", 0, "#"), ("#1", 0, "#"),
    ("x #:", 2, "#"), ("$", 0, "character"), ("16r", 0, "number"), ("16rG", 0, "number"),
    ("1r5", 0, "number"), ("37r", 0, "number"), ("10raisedTo: 2", 0, "number"),
    ("1e10001", 0, "number"), ("`x`", 0, "compiler"), ("x \xa0 y", 2, "xa0"),
    ("x² y", 1, "²"), ("\x0b", 0, "x0b"), ("€", 0, "€"),
])
def test_what_starts_no_token(source, start, word):
    with pytest.raises(SmalltalkSyntaxError, match=word) as caught:
        tokenize(source)
    assert (caught.value.line, caught.value.column) == (1, start + 1)


@pytest.mark.parametrize(("source", "dialects", "kinds"), [
    ("a _ b", "squeak cuis gnu visualworks gemstone", "n=n"), ("a _ b", "pharo dolphin", "nnn"),
    ("Foo.Bar new", "gnu dolphin visualworks", "nn"), ("Foo.Bar new", "pharo cuis", "npnn"),
    ("#{Foo.Bar}", "gnu dolphin", "!"), ("`Color white`", "cuis", "!"),
    ("##(1)", "dolphin", "!p#p"),
    ("$\\x2610", "dolphin", "$"), ("$\\x2610", "pharo", "$n"), ("#:", "squeak", "s"),
])
def test_dialects(source, dialects, kinds):
    for dialect in dialects.split():
        assert "".join(SHORT[token.kind] for token in tokenize(source, dialect)) == kinds, dialect


def test_unknown_dialect_lists_the_known():
    with pytest.raises(ValueError, match="'java' is unknown: choose one of pharo, squeak"):
        tokenize("x", "java")


@pytest.mark.parametrize(("text", "value"), [
    ("255", 255), ("16rFF", 255), ("16rff", 255), ("1e2", 100), ("2r101e3", 40), ("-5", -5),
    ("16r-F", -15), ("-16r-F", 15), ("16r1e2", 0x1e2), ("1.0", None), ("3s", None), ("1e-1", None),
])
def test_integer_value(text, value):
    assert integer_value(text) == value


@given(st.text(alphabet="ab1 .:=;|^$#'\"()[]{}<>-+_`é²\n", max_size=40),
       st.sampled_from(sorted(DIALECTS)))
def test_tokens_and_white_space_are_the_whole_source(source, dialect):
    kinds, texts, starts, comments = scan(source, dialect)
    pieces = sorted([*zip(starts, texts, strict=True), *[each[::-1] for each in comments]])
    end = 0
    for start, text in pieces:
        assert source[start:start + len(text)] == text
        assert not source[end:start].strip(" \t\n\r\f\0")
        end = max(end, start + len(text))
    assert end == len(source) and KINDS[kinds[-1]] == "end"


def test_an_integer_of_thousands_of_digits_has_no_value_and_is_no_byte():
    assert integer_value("9" * 1_000) is not None
    assert integer_value("9" * 5_000) is None
    with pytest.raises(SmalltalkSyntaxError, match="0 to 255"):
        parse_method("m ^ #[" + "9" * 5_000 + "]")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("source", ["m ^ ##", "m a: [##", "m ^ ## x", "m ^ ###", "m ^ #### ##",
                                    "m ##(", "m ^ #{", "m ^ `"])
def test_hashes_without_a_literal_are_a_syntax_error_and_nothing_else(source, dialect):
    with pytest.raises(SmalltalkSyntaxError):
        parse_method(source, dialect)


@pytest.mark.parametrize(("piece", "dialect"), [
    ("#", "pharo"), ("#{", "gnu"), ("#{", "dolphin"), ("`", "gnu"), ("'", "pharo"), ('"', "pharo"),
    ("$", "pharo"), ("#'", "pharo"), (":", "squeak"), ("1r", "pharo"), ("16r", "pharo"),
    ("1e", "pharo"), ("#:", "squeak"), ("a:", "pharo"), ("A.", "gnu"), ("-", "pharo")])
def test_long_sources_are_read_in_time_that_grows_with_their_length(piece, dialect):
    """Sixteen times as long: reading again from each place would take 256 times as long."""
    def seconds(count):
        took = []
        for _ in range(3):
            began = time.process_time()
            scan("m ^ " + piece * count, dialect)
            took.append(time.process_time() - began)
        return min(took)

    gc.disable()  # it would look through ever more tokens, again and again
    try:
        assert seconds(160_000) < 80 * seconds(10_000) + 0.01
    finally:
        gc.enable()
