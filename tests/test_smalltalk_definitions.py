"""Class definitions: the four forms of one class give one node."""

import pytest

from scratchbook.smalltalk.definitions import parse_class
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.nodes import ClassNode

POINT = ClassNode("Point", "Object", ("x", "y"), ("Zero",), ("count",), (), "Shapes-Flat")

FORMS = {
    "classic": """Object subclass: #Point
        instanceVariableNames: 'x y'
        classVariableNames: 'Zero'
        poolDictionaries: ''
        category: 'Shapes-Flat'.
    Point class instanceVariableNames: 'count'""",
    "fluid": """Object << #Point
        slots: { #x . #y => WeakSlot };
        sharedVariables: { #Zero };
        classSlots: { #count };
        tag: 'Flat';
        package: 'Shapes'""",
    "tonel 1": """Class { #name : #Point, #superclass : #Object,
        #instVars : [ 'x', 'y' ], #classVars : [ 'Zero' ], #classInstVars : [ 'count' ],
        #category : #'Shapes-Flat' }""",
    "tonel 3": """Class {
        #name : 'Point', #superclass : 'Object', #instVars : [ 'x', 'y' ],
        #classVars : [ 'Zero' ], #classInstVars : [ 'count' ],
        #category : 'Shapes-Flat', #package : 'Shapes', #tag : 'Flat' }""",
    "gnu": """Object subclass: Point [
        | x y |
        <category: 'Shapes-Flat'>
        Zero := nil.
        Point class [ | count | ]
        Point class >> new [ ^ super new setX: [ :a | a ] ]
        x [ "a ] in a comment" ^ x > 0 | (y < $]) ]
    ]""",
}


@pytest.mark.parametrize("form", FORMS)
def test_one_class_in_every_form(form):
    assert parse_class(FORMS[form]) == POINT


def test_traits_and_roots():
    for text in ("Trait named: #TFoo uses: {} package: 'P'", "Trait << #TFoo package: 'P'",
                 "Trait { #name : #TFoo, #category : #P }"):
        assert parse_class(text) == ClassNode("TFoo", "", category="P", is_trait=True)
    for text in ("nil subclass: #Root instanceVariableNames: '' package: ''",
                 "Class { #name : #Root, #superclass : #nil }", "nil subclass: Root [ ]"):
        assert parse_class(text) == ClassNode("Root", "")


def test_comments():
    assert parse_class('"\nI am ""big"".\n"\nClass { #name : #A }').comment == 'I am "big".'
    assert parse_class("Object subclass: A [ <comment: 'it''s me'> ]").comment == "it's me"
    assert parse_class("Object subclass: #A. A comment: 'mine'").comment == "mine"


@pytest.mark.parametrize("text", [
    "", "3 + 4", "self foo", "Object", "Extension { #name : #A }", "Class { #name : #A",
    "Object subclass: #A instanceVariableNames: 'x", "Object << ", "Object subclass: [ ]",
    "Object subclass: A [ <comment: 'x' ", "Object subclass: A [ < ", "Object subclass: A [ B := 1",
    "Object subclass: A [ foo [ ^ 1 ", "Object subclass: A [ A class [",
])
def test_what_defines_no_class(text):
    with pytest.raises(SmalltalkSyntaxError):
        parse_class(text)
