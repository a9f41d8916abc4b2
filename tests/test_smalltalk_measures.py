"""Measures of methods, each against a method in which the fault was planted."""

import math

from scratchbook.smalltalk.measures import (
    Share,
    World,
    block_parameters,
    coherence,
    is_trivial,
    known_sends,
    names_of,
    sends,
    unreachable,
)
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.records import ClassRecord, MethodRecord


def test_all_messages_of_a_cascade_and_of_blocks_count():
    tree = parse_method("foo ^ self a; b: (c d); + e; at: [:x | x size]")
    assert sorted(selector for selector, _, _ in sends(tree)) == ["+", "a", "at:", "b:", "d",
                                                                  "size"]


def test_a_cascades_messages_have_its_receiver():
    tree = parse_method("foo self a size; b: 1; yourself. ^ super foo; bar")
    found = [(selector, getattr(receiver, "name", getattr(receiver, "selector", None)))
             for selector, receiver, _ in sends(tree)]
    assert sorted(found) == [("a", "self"), ("b:", "a"), ("bar", "super"), ("foo", "super"),
                             ("size", "a"), ("yourself", "a")]
    own = [parse_method("log self size; stop; log"), parse_method("size ^ 1")]
    assert coherence([], own).self_answered == Share(2, 3)


def test_known_selectors():
    tree = parse_method("foo ^ self size + self sizzle")
    assert known_sends(tree, frozenset({"size", "+"})) == Share(2, 3)


def test_a_block_with_the_wrong_number_of_parameters_is_found():
    good = "foo a do: [:x | x]. a inject: 0 into: [:s :x | s + x]. a ifTrue: [1] ifFalse: [2]"
    assert block_parameters(parse_method(good)) == Share(4, 4)
    assert block_parameters(parse_method(good.replace("[:x | x]", "[1]"))) == Share(3, 4)
    assert block_parameters(parse_method(good.replace(":s :x |", ":s |"))) == Share(3, 4)
    assert block_parameters(parse_method("foo a do: aBlock; unknown: [:x | x]")) == Share(0, 0)


def test_undeclared_names_respect_blocks():
    tree = parse_method(
        "add: one | two | two := one. three := two. [:x | | y | y := x]. ^ x + Four")
    names = names_of(tree)
    assert names.undeclared == {"three": 1, "x": 1}
    assert names_of(tree, ["three"]).undeclared == {"x": 1}
    assert names_of(tree, ["three", "x"], frozenset()).undeclared == {"Four": 1}
    assert names_of(tree, ["three", "x"], frozenset({"Four"})).declared_share == Share(8, 8)


def test_declared_in_vain_and_assigned_parameters():
    names = names_of(parse_method("add: one | two three | three := 1. one := 2. [:q | q := 3]"))
    assert names.unused == ["two"]
    assert names.assigned_parameters == ["one", "q"]


def test_a_temporary_that_hides_a_parameter_may_be_assigned():
    assert not names_of(parse_method("add: one [| one | one := 2]")).assigned_parameters


def test_statements_behind_a_return():
    assert unreachable(parse_method("foo self a. ^ 1. self b. self c")) == 2
    assert unreachable(parse_method("foo x ifTrue: [^ 1. 2]. ^ 3")) == 1
    assert unreachable(parse_method("foo ^ 1. ^ 2. self a")) == 2
    assert unreachable(parse_method("foo ^ 1")) == 0


def test_trivial_methods():
    trivial = ["foo", "foo ^ bar", "foo: x bar := x", "foo ^ #(1 2)", "foo ^ self"]
    assert all(is_trivial(parse_method(each)) for each in trivial)
    other = ["foo ^ bar size", "foo: x bar := x. self changed", "foo ^ [:x | x]", "foo ^ a b; c"]
    assert not any(is_trivial(parse_method(each)) for each in other)


def test_a_class_is_more_coherent_than_its_methods_shuffled():
    stack = [parse_method(each) for each in (
        "push: x items addLast: x", "pop self isEmpty ifTrue: [^ nil]. ^ items removeLast",
        "isEmpty ^ items isEmpty")]
    account = [parse_method(each) for each in (
        "deposit: x balance := balance + x. self log", "log ^ history add: balance")]
    own = coherence(["items"], stack)
    mixed = coherence(["items"], [stack[0], *account])
    assert own.fields_used == Share(1, 1)
    assert own.names_declared.value == 1 > mixed.names_declared.value
    assert own.self_answered == Share(1, 1)
    assert coherence(["balance", "history", "owner"], account).fields_used == Share(2, 3)


def test_the_world_of_some_records():
    methods = [MethodRecord("foo ^ self bar: Baz", "Foo", False), MethodRecord("(", "Bad", False)]
    world = World.of(methods, [ClassRecord("Quux")])
    assert world.selectors == {"foo", "bar:"}
    assert world.globals == {"Foo", "Bad", "Baz", "Quux"}


def test_shares_add_and_an_empty_one_is_nan():
    assert Share(1, 2) + Share(2, 3) == Share(3, 5)
    assert math.isnan(Share(0, 0).value)
