"""The Smalltalk tokenizer: what its cut keeps whole, what no token may hold, and nothing lost."""

import re
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.smalltalk.nodes import CascadeNode, MessageNode, Node, SendNode
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.parts import END, METHOD, SPECIAL_TOKENS, Part, as_prompt, special
from scratchbook.smalltalk.readers import Origin, read_tonel
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk.regions import REGIONS, piece_regions, token_regions
from scratchbook.teaching.results import load_result
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.smalltalk import SmalltalkSplitter, SmalltalkTokenizer

LIBRARY = Path(__file__).resolve().parent.parent / "data" / "smalltalk"
METHODS = [record.source for path in sorted(LIBRARY.rglob("*.st"))
           for record in read_tonel(path.read_text(encoding="utf-8"), Origin(str(path)))
           if isinstance(record, MethodRecord)]
TOKENIZER = SmalltalkTokenizer().train(METHODS, 2000)
split = SmalltalkSplitter().split
SYNTAX = " \t\n\r\0'\"[](){}|:;.^#$_<>=-+!~é東aAzZ09"
any_text = st.text(st.characters(codec="utf-8") | st.sampled_from(SYNTAX), max_size=80)
code_like = st.lists(st.sampled_from(
    ["self", " self", "super ", "at:", " put:", " index", "x", " 1", "16r", "FF", " +", "-", ":=",
     " :=", "^", " ^ ", "[", " [", " :each", " |", "|", "].", ")", "}", ".", ";", "\n", "\n\t",
     "\t", " ", "  ", "\r\n", "'", "''", '"', "#", "#(", "$'", "$ ", "true", "nil ", "é", "東"]),
    max_size=30).map("".join)


# the cut


@pytest.mark.parametrize("chunks", [
    ["at:", " index", " put:", " anObject"],  # a keyword message
    ["a", " +", " 1", " --> #", "(", "1", " $a", ")"],  # binary ones, of any length
    ["a", "==", "b", ".", " c", "~=", "d"],
    ["xs", " do: [", " :each |", " each", " foo", " ]"],  # a block, its head whole
    ["xs", " inject:", " 0", " into: [", ":a", " :b |", "a", "+", "b", "]"],
    [" [", " :x |", " [", " :y |", " x", " +", " y", " ] ]"],  # nested
    ["self", " ||", " x"],  # the operator is not two bars of a block
    ["self size", " +", " super hash"],
    [".\n\tself assert: (", "a", " at:", " 1", ")"],
    ["x", " := self foo:", " y"],
    ["d", " at:", " self", " put:", " true"],  # here `self` is an argument, `put:` is not its own
    ["x", " foo", "].\n\t\t^ nil"],
    ["foo", "\n\t| ", "a", " b", " |\n\t", "a", " :=", " 1"],
    ["x", "\n\t<", "primitive:", " 60", ">\n\t", "^", " x"],
    ["#at:put:", " size", " #+", " ##", "foo"],
    ["'", "it", "''", "s", "'", ",", " $'", " $ ", "$\t"],
    ["123", "45", " 16", "rFF", " 3", ".", "14", "s2", " 1", "e10"],
    ["médiatriceDe:", " x"],
    ["a", "\n\t\tself foo", ";\n\t\t", "bar:", " 3", ";\n\t\t", "yourself"],
    ["Object", " subclass: #", "Foo", "\n\t", "slots: { #", "a", " };\n\t", "package: '", "B", "'"],
    ["Object", " subclass:", " Foo", " [", " |", " a", " |", " foo", " [", " ^", " a", " ] ]"],
])
def test_where_the_cut_falls(chunks):
    assert split("".join(chunks)) == chunks


@given(any_text | code_like)
@settings(max_examples=500, deadline=None)
def test_chunks_join_up_to_the_text(text):
    assert "".join(split(text)) == text


FIXED = ["self", "super", "true", "false", "nil", "thisContext"]
LETTERS = re.compile("[A-Za-z_\x80-\U0010ffff][0-9A-Za-z_\x80-\U0010ffff]*")


@given(any_text | code_like)
@settings(max_examples=500, deadline=None)
def test_no_chunk_holds_two_names_unless_the_first_is_fixed(text):
    for chunk in split(text):
        names = LETTERS.findall(chunk)
        if len(names) > 1 and not chunk.lstrip().startswith("#"):
            assert len(names) == 2
            assert names[0] in FIXED
        # and never digits beside a name
        assert len(names) == 0 or not re.search(r"(?<![\w\x80-\U0010ffff])\d", chunk)


@pytest.mark.parametrize("unit", [
    " ", "\t", "\n", " \n", "\n ", "self ", "self foo ", "a:", "#a:", "a", "]", " ]", "'", ".\n",
    ":a |", "^ ", "^ self ", "1", "+", "(", "#", "[ ", "| ", "$", "self:", "\n\t^ self"])
def test_a_long_run_is_read_in_linear_time(unit):
    """Were a place of the pattern quadratic, these 200,000 characters would take many minutes."""
    for end in ("", "x", "\n", ":", "é"):
        text = unit * (200_000 // len(unit)) + end
        assert "".join(split(text)) == text


# nothing is lost


@given(any_text | code_like)
@settings(max_examples=500, deadline=None)
def test_any_text_comes_back(text):
    ids = TOKENIZER.encode_ordinary(text)
    assert TOKENIZER.decode(ids, errors="strict") == text
    assert all(0 <= token_id < TOKENIZER.vocab_size for token_id in ids)


@pytest.mark.parametrize("text", [
    "", "\0", "\r\n\r", "'it''s' $' $\" \"a \"\"b\"\"\"", "médiatriceDe: é", "東京 := 'naïve'",
    "\ufeff| a |", "\u2028\u00a0x", "<|endoftext|> <|end|>", "'" * 999, "[" * 500 + "]" * 500,
    "foo\r\t^ 'a\rb'", "\U0010ffff",
])
def test_odd_texts_come_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode_ordinary(text), errors="strict") == text


def test_a_method_means_the_same_afterwards():
    assert len(METHODS) > 200
    for source in METHODS:
        again = TOKENIZER.decode(TOKENIZER.encode(source))
        assert parse_method(again) == parse_method(source)


# what a token of a trained vocabulary holds


def places(source: str) -> list[tuple[int, int]]:
    """From where to where in the source each token reaches (the library's methods are ASCII)."""
    pieces = [len(TOKENIZER.token_bytes(i)) for i in TOKENIZER.encode_ordinary(source)]
    return list(pairwise(accumulate(pieces, initial=0)))


def sends(node: Node):
    """Of every message with arguments: where the selector's characters stand, and each argument."""
    for each in node.walk():
        if isinstance(each, SendNode | MessageNode) and each.arguments:
            start = each.receiver.stop if isinstance(each, SendNode) else each.start
            edges = [start, *(edge for a in each.arguments for edge in (a.start, a.stop))]
            gaps = list(zip(edges[::2], edges[1::2], strict=False))
            yield [*gaps], [(a.start, a.stop) for a in each.arguments]


def test_no_token_holds_letters_of_a_selector_and_of_its_argument():
    messages = 0
    for source in METHODS:
        bare = re.sub(r'"[^"]*"', lambda found: " " * len(found[0]), source)
        spans = places(source)
        for gaps, arguments in sends(parse_method(source)):
            messages += 1
            selector = {at for low, high in gaps for at in range(low, high)
                        if not bare[at].isspace() and bare[at] not in "()[]{}"}
            argument = {at for low, high in arguments for at in range(low, high)
                        if bare[at].isalnum()} - selector
            for low, high in spans:
                inside = set(range(low, high))
                assert not (inside & selector and inside & argument), source[low:high]
    assert messages > 500


def test_frequent_selectors_and_block_heads_are_one_token():
    for text in [" at:", " ifTrue: [", " ifFalse: [", " do: [", " := self", " :each |", "^ self",
                 ".\n\t^ ", " size", " new", "\n\t\t", " ].\n\t"]:
        assert len(TOKENIZER.encode(text)) == 1, text


def test_a_selector_is_read_off_its_pieces():
    source = "at: index put: anObject"
    pieces = [TOKENIZER.token_bytes(i).decode() for i in TOKENIZER.encode(source)]
    keywords = re.findall(r"\w+:", " ".join(pieces))
    assert "".join(keywords) == parse_method(source).selector


# regions


def test_the_regions_of_a_method():
    source = ('at: i "where" put: x\n\t<primitive: 60>\n\t| a b |\n\t<foo>\n\t"now"\n'
              "\ta := i | x.\n\t^ [ :y | | z | z ]")
    found = {region: " ".join(token.text for token, each in token_regions(source) if each == region)
             for region in REGIONS}
    assert found == {
        "header": "at: i put: x", "pragma": "< primitive: 60 > < foo >", "temporaries": "| a b |",
        "body": "a := i | x . ^ [ : y | | z | z ]", "comment": '"where" "now"'}


@pytest.mark.parametrize(("source", "regions"), [
    ("foo", "header"), ("+ a", "header header"), ("foo ^ a | b", "header body body body body"),
    ("foo || ^ 1", "header temporaries body body"),
    ("foo | a | | b", None),
])
def test_the_regions_of_small_methods(source, regions):
    if regions is None:
        with pytest.raises(ValueError, match="line 1"):
            token_regions(source)
    else:
        assert [region for token, region in token_regions(source)
                if token.kind != "end"] == regions.split()


def test_no_token_holds_letters_of_two_regions():
    for source in METHODS:
        owner = {at: region for token, region in token_regions(source)
                 for at in range(token.start, token.start + len(token.text))
                 if source[at].isalnum()}
        for low, high in places(source):
            assert len({owner[at] for at in range(low, high) if at in owner}) <= 1


def test_pieces_know_their_region():
    source = "foo\n\t| a |\n\ta := 1.\n\t^ a"
    pieces = [TOKENIZER.decode([i]) for i in TOKENIZER.encode(source)]
    found = list(piece_regions(source, pieces))
    assert "".join(piece for piece, _ in found) == source
    assert [region for _, region in found] == sorted(
        (region for _, region in found), key=["header", "temporaries", "body"].index)
    assert {region for _, region in found} == {"header", "temporaries", "body"}


# special tokens


def test_special_tokens_have_ids_and_are_never_split_or_made_by_text():
    assert TOKENIZER.vocab_size == 2000
    for token in SPECIAL_TOKENS:
        [token_id] = TOKENIZER.encode(token, allowed_special={token})
        assert TOKENIZER.decode([token_id]) == token
        assert token_id not in TOKENIZER.encode_ordinary(f"x {token} y")
        with pytest.raises(ValueError, match="spells the special token"):
            TOKENIZER.encode(f"foo ^ '{token}'")


def test_marked_parts_become_ids_and_what_is_learned():
    parts = (*as_prompt([special(METHOD), Part("foo")]), Part("\n\t^ '<|end|>'"), special(END))
    ids, learned = TOKENIZER.encode_parts(parts)
    foo, body = (TOKENIZER.encode_ordinary(part.text) for part in (parts[1], parts[2]))
    assert ids == [TOKENIZER.special_tokens[METHOD], *foo, *body, TOKENIZER.special_tokens[END]]
    assert learned == [False] * (1 + len(foo)) + [True] * (len(body) + 1)
    with pytest.raises(ValueError, match="none of the special tokens"):
        TOKENIZER.encode_parts([Part("<|other|>", special=True)])
    with pytest.raises(ValueError, match="no special token"):
        special("<|other|>")


# files


def test_a_saved_tokenizer_is_loaded_the_same(tmp_path):
    TOKENIZER.save(tmp_path / "t.json")
    for kind in (SmalltalkTokenizer, Tokenizer):
        loaded = kind.load(tmp_path / "t.json")
        assert isinstance(loaded, SmalltalkTokenizer)
        assert (loaded.ranks, loaded.special_tokens) == (TOKENIZER.ranks, TOKENIZER.special_tokens)
        assert loaded.encode(METHODS[0]) == TOKENIZER.encode(METHODS[0])


def test_another_pattern_is_refused():
    with pytest.raises(ValueError, match="use BPETokenizer"):
        SmalltalkTokenizer("gpt2")


def test_a_cascade_shares_its_receiver_in_the_tree():
    """The walk of `sends` above sees a cascade's messages."""
    tree = parse_method("foo ^ a at: 1; at: 2")
    assert any(isinstance(each, CascadeNode) for each in tree.walk())
    assert len(list(sends(tree))) == 2


# the one that is shipped


SHIPPED = LIBRARY.parent / "smalltalk_model" / "tokenizer.json"


def test_the_shipped_tokenizer():
    shipped = SmalltalkTokenizer.load(SHIPPED)
    assert 9_000 <= shipped.vocab_size <= 11_000
    assert set(shipped.special_tokens) == set(SPECIAL_TOKENS)
    assert SHIPPED.stat().st_size < 400_000
    for source in METHODS:
        assert shipped.decode(shipped.encode_ordinary(source), errors="strict") == source
    for text in [" ifTrue: [", " at:", " put:", " collect: [", " :each |", " OrderedCollection",
                 ".\n\tself assert:", "\n\t^ self", " ].\n\t\t", " new", " aCollection"]:
        assert len(shipped.encode(text)) == 1, text
    tokens = [shipped.token_bytes(i).decode("utf-8", "replace") for i in range(len(shipped.ranks))]
    for token in tokens:  # two names: a fixed one (or its end) and a selector, or a symbol's parts
        names = LETTERS.findall(token)
        assert len(names) < 2 or any(fixed.endswith(names[0]) for fixed in FIXED) or re.fullmatch(
            r" ?#?(?:\w+:)+\w*", token), token


def test_its_recorded_comparison_is_of_this_file():
    numbers = load_result("09_smalltalk.tokenizers").numbers
    assert numbers["file_bytes"] == SHIPPED.stat().st_size
    assert numbers["vocab_size"]["ours"] == SmalltalkTokenizer.load(SHIPPED).vocab_size
    trips = numbers["round_trips"]
    assert trips["same_text"] == trips["methods"] > 30_000
    assert trips["same_tree"] == trips["parsed"]
