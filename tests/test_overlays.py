"""What code means at each character: classes, trees, roles, scopes, sends, and their tokens."""

import ast
import io
import random
import symtable
import tokenize
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.interpret.overlays import (
    LANGUAGES,
    Stretch,
    align,
    kinds_of,
    overlay,
    send_paths,
)
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.tokenizers import BPETokenizer, CharTokenizer

LIBRARY = Path(__file__).resolve().parent.parent / "data" / "smalltalk"
PACKAGE = LIBRARY.parent.parent / "scratchbook"
METHOD = ("at: i put: v | t |\n\t\"grüße\" t := OrderedCollection new.\n"
          "\t^ self foo: (t at: i-2) bar: [:x :y || z | z := x + v. [ z := y ] value]; baz")
FUNCTION = ("@cached\ndef größe(a, *, b=3):  # ünïcode\n"
            "    é = [c.lower() for c in a if c != 'ß']\n"
            "    return self.find(é, key=lambda q: q + b)[0]\n")
# each source with all its paths
PATHS = {
    "Transcript show: 'a'; cr": ["Transcript → show:", "Transcript → cr"],
    "a b c d": ["a → b → c → d"],
    "a + b - c": ["a → + → -"],
    "a b + c d": ["a → b → +", "c → d"],
    "a foo: b bar: c": ["a → foo:bar:"],
    "(a b) c": ["a → b → c"],
    "(((a b))) c": ["a → b → c"],
    "(a + b) foo: (c d: e)": ["a → + → foo:", "c → d:"],
    "a b; c; d: 1": ["a → b", "a → c", "a → d:"],
    "a b c; d": ["a → b → c", "a → b → d"],
    "(a b; c) d": ["a → c → d", "a → b"],
    "(a foo: 1; bar: 2) baz; qux": ["a → bar: → baz", "a → bar: → qux", "a → foo:"],
    "OrderedCollection new add: 1; add: 2; yourself": [
        "OrderedCollection → new → add:", "OrderedCollection → new → add:",
        "OrderedCollection → new → yourself"],
    "a foo: b; + c; bar: d baz: e": ["a → foo:", "a → +", "a → bar:baz:"],
    "[:x | x y] value: 3": ["[:x | x y] → value:", "x → y"],
    "[:x :y || t | t := x. t foo] value: 1 value: 2": [
        "[:x :y || t | t := x. t foo] → value:value:", "t → foo"],
    "a := b c": ["b → c"],
    "a := b := c d e": ["c → d → e"],
    "^ a b": ["a → b"],
    "#(1 2) size": ["#(1 2) → size"],
    "#[1 2] first": ["#[1 2] → first"],
    "{a. b c} size": ["{a. b c} → size", "b → c"],
    "-3 abs": ["-3 → abs"],
    "3-2": ["3 → -"],
    "a > -3": ["a → >"],
    "x at: 1 put: (x at: 2)": ["x → at:put:", "x → at:"],
    "self foo bar: super baz": ["self → foo → bar:", "super → baz"],
    "'abc' , 'def' , 'g'": ["'abc' → , → ,"],
    "a isNil ifTrue: [^ b c] ifFalse: [d e]": [
        "a → isNil → ifTrue:ifFalse:", "b → c", "d → e"],
    "a b. c d": ["a → b", "c → d"],
    "a == nil | b": ["a → == → |"],
    "a \"why\" foo: \"what\" (\"this\" b c)": ["a → foo:", "b → c"],
}


def methods(count: int, seed: int = 1) -> list[str]:
    found = [each.source for each in read_folder(LIBRARY, "course")
             if isinstance(each, MethodRecord)]
    return random.Random(seed).sample(found, count)


def modules(count: int, seed: int = 1) -> list[str]:
    return [path.read_text(encoding="utf-8")
            for path in random.Random(seed).sample(sorted(PACKAGE.rglob("*.py")), count)]


def sources() -> list[tuple[str, str]]:
    return ([(each, "smalltalk") for each in [METHOD, *methods(300)]]
            + [(each, "python") for each in [FUNCTION, *modules(24)]])


def spans_of(tokenizer, text: str) -> list[tuple[int, int]]:
    """The characters that each token's bytes touch."""
    place, byte_of = [], 0
    for at, letter in enumerate(text):
        place += [at] * len(letter.encode())
    place.append(len(text))
    found = []
    for each in tokenizer.encode(text):
        size = len(tokenizer.token_bytes(each))
        found.append((place[byte_of], place[byte_of + size - 1] + 1))
        byte_of += size
    assert byte_of == len(text.encode())
    return found


@pytest.mark.parametrize("source", PATHS)
def test_message_paths(source):
    assert send_paths(overlay(source, "smalltalk", "expression")) == PATHS[source]


def test_there_are_thirty_cases_of_every_kind():
    kinds = {send.kind for source in PATHS
             for send in overlay(source, "smalltalk", "expression").sends}
    assert len(PATHS) >= 30 and kinds == {"unary", "binary", "keyword"}


def test_a_keyword_knows_what_fills_it():
    found = overlay(METHOD, "smalltalk")
    send = next(each for each in found.sends if each.selector == "foo:bar:")
    assert [(each.word, found.text(each)) for each in send.arguments] == [
        ("foo:", "t at: i-2"), ("bar:", "[:x :y || z | z := x + v. [ z := y ] value]")]
    assert [found.source[slice(*word)] for word in send.words] == ["foo:", "bar:"]
    baz = next(each for each in found.sends if each.selector == "baz")
    assert (send.cascade, send.receiver) == (baz.cascade, baz.receiver)
    assert found.source[slice(*baz.receiver)] == "self"
    minus = next(each for each in found.sends if each.selector == "-")
    assert [found.text(each) for each in minus.arguments] == ["2"]
    assert [found.source[slice(*word)] for word in minus.words] == ["-"]


def test_calls_of_python():
    found = overlay(FUNCTION, "python")
    assert [(each.selector, [(a.word, found.text(a)) for a in each.arguments])
            for each in found.sends] == [
        ("lower", []), ("find", [("", "é"), ("key", "lambda q: q + b")])]
    assert found.source[slice(*found.sends[1].receiver)] == "self"
    assert send_paths(overlay("a.b(1).c(2)(3)", "python")) == ["a → b → c → ()"]
    assert send_paths(overlay("print(f(x))", "python")) == ["print", "f"]


def test_nested_blocks_are_bands_inside_each_other():
    found = overlay(METHOD, "smalltalk")
    assert [(each.kind, each.depth, each.parent, [(d.name, d.what) for d in each.declares])
            for each in found.scopes] == [
        ("method", 0, -1, [("i", "parameter"), ("v", "parameter"), ("t", "temporary")]),
        ("block", 1, 0, [("x", "parameter"), ("y", "parameter"), ("z", "temporary")]),
        ("block", 2, 1, [])]
    assert {(use.name, use.scope) for use in found.uses} == {
        ("t", 0), ("OrderedCollection", -1), ("i", 0), ("v", 0), ("x", 1), ("y", 1), ("z", 1)}


def test_the_innermost_declaration_counts():
    found = overlay("a: x ^ [:x | [:x | x] value: x] value: x", "smalltalk")
    assert [use.scope for use in found.uses] == [2, 1, 0]
    found = overlay("| a | a := 1. [| a | a]", "smalltalk")
    assert (found.scopes[0].kind, [use.scope for use in found.uses]) == ("statements", [0, 1])


def test_scopes_of_python():
    found = overlay(FUNCTION, "python")
    assert [(each.kind, [d.name for d in each.declares]) for each in found.scopes] == [
        ("module", ["größe"]), ("function", ["a", "b", "é"]), ("comprehension", ["c"]),
        ("lambda", ["q"])]
    where = {(use.name, use.scope) for use in found.uses}
    assert {("b", 1), ("q", 3), ("c", 2), ("é", 1), ("self", -1), ("cached", -1)} <= where


def test_names_that_live_elsewhere():
    source = ("x = 1\nclass A:\n  x = 2\n  def f(self):\n    global y\n    y = x\n"
              "    return [z := x for x in self]\ny = 0\n")
    found = overlay(source, "python")
    function = next(at for at, each in enumerate(found.scopes) if each.kind == "function")
    by_name = {}
    for use in found.uses:
        by_name.setdefault(use.name, []).append(found.scopes[use.scope].kind)
    assert by_name["y"] == ["module", "module"]
    assert [each.name for each in found.scopes[function].declares] == ["self", "z"]
    assert by_name["x"] == ["module", "class", "module", "comprehension", "comprehension"]


def test_python_scopes_are_those_of_the_compiler():
    """Every function's locals, as `symtable` counts them."""
    def tables(table):
        for child in table.get_children():
            yield child
            yield from tables(child)

    compared = 0
    for source in modules(25, seed=2):
        found = overlay(source, "python")
        ours = sorted((scope.name, sorted({d.name for d in scope.declares}))
                      for scope in found.scopes if scope.kind == "function")
        theirs = sorted((table.get_name(),
                         sorted(s.get_name() for s in table.get_symbols() if s.is_local()))
                        for table in tables(symtable.symtable(source, "x", "exec"))
                        if table.get_type() == "function" and table.get_name() not in (
                            "lambda", "listcomp", "genexpr", "dictcomp", "setcomp"))
        assert ours == theirs
        compared += len(ours)
    assert compared > 150


def test_roles():
    source = "at: i | t | t := self foo: #a. ^ t \"c\" bar"
    found = overlay(source, "smalltalk")
    assert [(each.kind, found.text(each)) for each in sorted(
        found.roles, key=lambda each: (each.start, each.kind))] == [
        ("definition", "at:"), ("parameter", "i"), ("temporary", "t"), ("assigned", "t"),
        ("receiver", "self"), ("selector", "foo:"), ("argument", "#a"), ("literal", "#a"),
        ("receiver", "t"), ("comment", '"c"'), ("selector", "bar")]
    spans = [(at, at + 1) for at in range(len(source))]
    kinds = kinds_of(spans, found.roles)
    assert kinds[source.index("#a")] == ["argument", "literal"]
    assert kinds[source.index(":=")] == []
    found = overlay(FUNCTION, "python")
    said = {(each.kind, found.text(each)) for each in found.roles}
    assert {("definition", "größe"), ("parameter", "a"), ("literal", "'ß'"), ("assigned", "é"),
            ("receiver", "self"), ("selector", "find"), ("argument", "é"), ("selector", "key"),
            ("comment", "# ünïcode")} <= said


def test_syntax_classes():
    found = overlay("x: y \"c\" ^ self at: #a put: 'b' + 2r1; foo: nil with: $d", "smalltalk")
    assert [(each.kind, found.text(each)) for each in found.classes] == [
        ("message", "x:"), ("name", "y"), ("comment", '"c"'), ("punctuation", "^"),
        ("keyword", "self"), ("message", "at:"), ("symbol", "#a"), ("message", "put:"),
        ("string", "'b'"), ("operator", "+"), ("number", "2r1"), ("punctuation", ";"),
        ("message", "foo:"), ("constant", "nil"), ("message", "with:"), ("string", "$d")]
    found = overlay("if x is None: y = rb'a' + 0x1F  # c", "python")
    assert [each.kind for each in found.classes] == [
        "keyword", "name", "keyword", "constant", "punctuation", "name", "operator", "string",
        "operator", "number", "comment"]


def test_python_classes_are_the_tokens_of_the_standard_library():
    known = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.COMMENT)
    compared = 0
    for source in [FUNCTION, *(each for each in modules(30, seed=3) if "rf\"" not in each)]:
        lines = io.StringIO(source).readlines()
        begins = [sum(map(len, lines[:at])) for at in range(len(lines) + 1)]
        theirs = [(begins[each.start[0] - 1] + each.start[1], each.string)
                  for each in tokenize.generate_tokens(io.StringIO(source).readline)
                  if each.type in known]
        found = overlay(source, "python")
        ours = {each.start: found.text(each) for each in found.classes}
        theirs = [each for each in theirs if not each[1].startswith(("f", "F"))
                  or each[1].isidentifier()]
        assert [(start, ours.get(start)) for start, _ in theirs] == theirs
        compared += len(theirs)
    assert compared > 10_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_classes_agree_with_pygments(language):
    """Where Pygments sees a comment (in Python a number, too), so do we, and nowhere else."""
    lexers = pytest.importorskip("pygments.lexers")
    from pygments.token import Comment, Number

    lexer = lexers.get_lexer_by_name(language, stripnl=False, ensurenl=False)
    texts = modules(5, seed=4) if language == "python" else methods(60, seed=4)
    wanted = {"comment": Comment} | ({"number": Number} if language == "python" else {})

    def letters(found, kind: str) -> set[int]:
        return {at for each in found.classes if each.kind == kind
                for at in range(each.start, each.stop)}

    compared = 0
    for source in texts:
        found, tokens = overlay(source, language), list(lexer.get_tokens_unprocessed(source))
        strings = letters(found, "string")  # Pygments looks into formatted ones
        for name, wide in wanted.items():
            theirs = {at for start, kind, text in tokens if kind in wide
                      for at in range(start, start + len(text))}
            differ = (letters(found, name) ^ theirs) - strings
            assert not {at for at in differ if source[at].strip()}
            compared += len(theirs)
    assert compared > 200


def test_what_does_not_parse_keeps_its_classes():
    for source, language in (("foo ^ (1 \"c\"", "smalltalk"), ("def f(:  # c\n x = 'a", "python")):
        found = overlay(source, language)
        assert "does not parse" in found.error and found.classes
        assert not (found.nodes or found.sends or found.scopes or found.uses)
        assert {each.kind for each in found.roles} == {"comment"}
    assert "line 1" in overlay("x ^ (1", "smalltalk").error
    with pytest.raises(ValueError, match="language='rust'"):
        overlay("x", "rust")
    with pytest.raises(ValueError, match="read_as='class'"):
        overlay("x", "smalltalk", "class")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab:|[]()'\"#$.;^-1 \n\té漢😀\\fd=,", max_size=40),
       st.sampled_from(LANGUAGES))
def test_any_text_has_an_overlay(source, language):
    found = overlay(source, language)
    assert found.error or found.nodes
    for each in (*found.classes, *found.roles, *found.nodes, *found.scopes, *found.sends):
        assert 0 <= each.start <= each.stop <= len(source)


def test_nodes_stand_inside_of_their_parents_and_say_what_they_are():
    names = 0
    for source, language in sources():
        found = overlay(source, language)
        assert not found.error, (found.error, source)
        for at, node in enumerate(found.nodes):
            if node.parent >= 0:
                above = found.nodes[node.parent]
                assert node.parent < at and above.start <= node.start <= node.stop <= above.stop
            if node.kind in ("variable", "name", "number", "symbol"):
                assert found.text(node).startswith(node.text)
                names += 1
        for send in found.sends:
            if language == "smalltalk":
                assert "".join(found.source[slice(*word)] for word in send.words) == send.selector
        for each in (*found.uses, *(d for scope in found.scopes for d in scope.declares)):
            assert found.text(each) == each.name
        roots = [at for at, node in enumerate(found.nodes) if node.parent < 0]
        assert roots == [0]  # every node hangs on the first
    assert names > 5000


def test_python_nodes_are_those_of_ast():
    for source in [FUNCTION, *modules(6, seed=5)]:
        found = overlay(source, "python")
        places = {(node.start, node.stop) for node in found.nodes}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name | ast.Call | ast.Attribute | ast.Constant):
                text = ast.get_source_segment(source, node)
                if not any(isinstance(each, ast.JoinedStr) for each in ast.walk(node)):
                    assert any(source[a:b] == text for a, b in places) or "{" in source, text


# ------------------------------------------------------------------------------------ tokens

@pytest.fixture(scope="module")
def tokenizers():
    """Bytes, which cut letters into parts; merges, which cross words; letters."""
    text = "".join(methods(200)) + "".join(modules(4))
    return [BPETokenizer().train("x", 256), BPETokenizer().train(text, 600),
            CharTokenizer().train(METHOD + FUNCTION + "漢😀")]


def check_alignment(spans, places):
    for place, (first, last) in zip(places, align(spans, places), strict=True):
        touching = [at for at, (start, stop) in enumerate(spans)
                    if start < place.stop and stop > place.start]
        if place.stop > place.start:
            assert list(range(first, last)) == touching, (place, first, last)
            covered = {c for at in range(first, last) for c in range(*spans[at])}
            assert set(range(place.start, place.stop)) <= covered


def test_every_node_covers_its_tokens(tokenizers):
    tokens = 0
    for source, language in sources()[::6]:
        found = overlay(source, language)
        for tokenizer in tokenizers[:2]:
            spans = spans_of(tokenizer, source)
            places = [*found.nodes, *found.roles, *found.scopes][:400]
            check_alignment(spans, places)
            tokens += len(spans)
    for source, language in ((METHOD, "smalltalk"), (FUNCTION, "python")):
        found = overlay(source, language)
        for tokenizer in tokenizers:
            check_alignment(spans_of(tokenizer, source), [*found.nodes, *found.classes])
    assert tokens > 20_000


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab é漢😀\n+:", min_size=1, max_size=30), st.data())
def test_alignment_of_any_cut(text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    spans = list(zip(cuts, cuts[1:], strict=False))
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    check_alignment(spans, [Stretch("x", start, stop)])


def test_parts_of_letters_and_tokens_of_nothing():
    # two bytes of one letter, and a special token that stands before it
    spans = [(0, 0), (0, 1), (0, 1), (1, 3), (3, 3), (3, 4)]
    assert align(spans, [Stretch("x", 0, 1), Stretch("x", 1, 3), Stretch("x", 3, 4),
                         Stretch("x", 2, 2), Stretch("x", 9, 10)]) == [
        (0, 3), (3, 4), (4, 6), (4, 4), (6, 6)]
    for wrong in ([(3, 5), (1, 2)], [(2, 1)]):
        with pytest.raises(ValueError, match="must go forwards"):
            align(wrong, [Stretch("x", 0, 1)])


def test_a_document_of_several_parts():
    source = ("<|class|>Object subclass: #A\n\tinstanceVariableNames: 'b'<|end|><|method|>"
              "c: d ^ b e: [:f | f g]; h<|end|>")
    found = overlay(source, "smalltalk")
    assert not found.error
    assert [(scope.kind, scope.parent) for scope in found.scopes] == [
        ("statements", -1), ("method", -1), ("block", 1)]
    assert [(node.kind, found.text(node)) for node in found.nodes if node.kind == "method"] == [
        ("method", "c: d ^ b e: [:f | f g]; h")]
    assert send_paths(found)[-3:] == ["b → e:", "b → h", "f → g"]
    assert found.text(next(use for use in found.uses if use.name == "f")) == "f"
    assert [found.source[slice(*send.receiver)] for send in found.sends][-1] == "f"
    assert sum(found.text(each).startswith("<|") for each in found.classes) == 4
    data = found.to_json()
    assert data["nodes"][0]["kind"] == found.nodes[0].kind and "source" not in data
