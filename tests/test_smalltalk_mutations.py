"""Bugs with a name: one edit each, refused by the parser or read as another method."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_smalltalk_tokenizer import METHODS

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.mutations import BREAKING, LABELS, MEANING, Method, mutate, mutations
from scratchbook.smalltalk.parser import parse_method

EXAMPLE = """insert: anObject at: anIndex
	"Answer 'it'."
	| place |
	super insert: anObject at: anIndex.
	place := (anIndex max: 1) + 1.
	place > 9 ifTrue: [ ^ #(1 $a) first ].
	self do: [ :each | each at: place put: anObject ].
	^ 'done' , { place } printString"""


def draw(seed: int = 0) -> random.Random:
    return random.Random(seed)


@pytest.mark.parametrize(("label", "before", "after"), [
    ("= for :=", "x\n\ta := b", "x\n\ta = b"),
    ("swapped arguments", "x\n\ta at: 1 put: b", "x\n\ta at: b put: 1"),
    ("dropped keyword", "x\n\ta at: 1 put: b + c", "x\n\ta at: 1"),
    ("missing return", "x\n\t^ a", "x\n\ta"),
    ("misspelt variable", "x: name\n\t^ name", "x: name\n\t^ nmae"),
    ("opposite", "x\n\ta ifTrue: [ b ]", "x\n\ta ifFalse: [ b ]"),
    ("self for super", "x\n\tsuper x", "x\n\tself x"),
    ("missing colon", "x: a\n\t^ 1", "x a\n\t^ 1"),
    ("missing operand", "x\n\t^ 1 + a", "x\n\t^ 1 +"),
    ("missing bar", "x\n\t| a |\n\ta := 1", None),
    ("missing period", "x\n\ta := 1.\n\tb := 2", "x\n\ta := 1\n\tb := 2"),
    ("missing bracket", "x\n\t^ (a)", None), ("extra bracket", "x\n\t^ [ 1 ]", None),
    ("missing quote", "x\n\t^ 'a'", None), ("swapped closers", "x\n\t^ [ 1 ]", "x\n\t^ [ 1 )"),
])
def test_each_bug_by_hand(label, before, after):
    found = mutate(before, label, draw())
    assert (found.label, found.original) == (label, before)
    assert found.breaks_syntax == (label in BREAKING)
    if after is not None:
        assert found.source == after
    else:
        assert abs(len(found.source) - len(before)) in (1, 2)
        with pytest.raises(SmalltalkSyntaxError):
            parse_method(found.source)


@pytest.mark.parametrize(("label", "source"), [
    ("= for :=", "x\n\t^ a"), ("swapped arguments", "x\n\ta at: 1 put: 1"),
    ("missing return", "x\n\ta b"), ("self for super", "x\n\tself x"),
    ("missing period", "x\n\ta foo.\n\tb bar"),  # without it: the message `b bar` to `a foo`
    ("misspelt variable", "x: ab\n\t^ ab"), ("dropped keyword", "x\n\ta at: 1"),
    ("missing quote", "x\n\t^ #a"), ("missing bracket", "x\n\t^ 1"),
    ("missing bracket", "x\n\t^ '(' , \"[\" $]"),
])
def test_what_offers_no_bug_gives_none(label, source):
    assert mutate(source, label, draw()) is None


def test_every_bug_of_the_library_is_judged_as_its_label_says():
    counts = Counter()
    for source in METHODS[:250]:
        tree = parse_method(source)
        for bug in mutations(source, draw()):
            counts[bug.label] += 1
            changed = source[: bug.edit.start] + bug.edit.text + source[bug.edit.stop :]
            assert bug.source == changed != source
            if bug.breaks_syntax:
                with pytest.raises(SmalltalkSyntaxError):
                    parse_method(bug.source)
            else:
                assert parse_method(bug.source) != tree
    assert set(counts) == set(LABELS) == BREAKING.keys() | MEANING.keys()


@given(st.sampled_from(METHODS), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_same_seed_gives_the_same_bugs(source, seed):
    assert mutations(source, draw(seed)) == mutations(source, draw(seed))


def test_different_seeds_give_different_places():
    sources = {mutate(EXAMPLE, "missing bracket", draw(seed)).source for seed in range(20)}
    assert len(sources) > 3


def test_a_bug_does_not_give_itself_away_by_two_blanks():
    for seed in range(30):
        for bug in mutations(EXAMPLE, draw(seed)):
            assert "  " not in bug.source.replace("\t", "")


def test_comments_and_literals_are_no_code():
    assert [token.text for token in Method("x\n\t^ '(' , \"[\" $]").inside("( ) [ ]")] == []


def test_an_unknown_label_and_no_method_are_refused():
    with pytest.raises(ValueError, match=r"label='typo' is unknown: choose one of missing bracket"):
        mutate(EXAMPLE, "typo", draw())
    with pytest.raises(SmalltalkSyntaxError):
        mutate("x ^ ^", "missing return", draw())
