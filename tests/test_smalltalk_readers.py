"""Tonel is read as it was written: classes, comments, protocols, and bodies full of brackets."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.smalltalk.readers import Origin, read_tonel
from scratchbook.smalltalk.readers.scanning import decode, selector_of
from scratchbook.smalltalk.readers.ston import read_ston
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Skipped
from scratchbook.smalltalk.writers import write_tonel

HERE = Origin("src/Zoo-Core/Cage.class.st", project="zoo", licence="MIT")

FIRST_VERSION = '''"
I hold ""animals"".
"
Class {
	#name : #Cage,
	#superclass : #Object,
	#instVars : [
		'animals',
		'#keeper => WeakSlot'
	],
	#classVars : [
		'Open'
	],
	#category : #'Zoo-Core'
}

{ #category : #'as yet unclassified' }
Cage class >> for: anAnimal "not [ a ] body" [
	^ self new add: anAnimal; yourself
]

{ #category : #testing }
Cage >> holds: x [

	"it's [ open"
	^ animals anySatisfy: [ :each | each = x or: [ $[ = x or: [ x = ']''[' ] ] ]
]

{ #category : #'*Zoo-Extras' }
Cage >> + other [ ^ other ]
'''
THIRD_VERSION = (
    "Class {\n\t#name : 'Cage',\n\t#superclass : 'Object',\n\t#category : 'Zoo-Core-Rooms',\n"
    "\t#package : 'Zoo-Core',\n\t#tag : 'Rooms'\n}\n\n"
    "{ #category : 'accessing' }\nCage >> size [\n\t^ 1\n]\n")


def records(text, origin=HERE, kind=object):
    return [record for record in read_tonel(text, origin) if isinstance(record, kind)]


def test_the_first_version():
    cage, made, holds, plus = records(FIRST_VERSION)
    assert cage == ClassRecord(
        "Cage", "Object", ("animals", "keeper"), ("Open",), comment='I hold "animals".',
        category="Zoo-Core", package="Zoo-Core", project="zoo", licence="MIT", path=HERE.path)
    assert made.source == ('for: anAnimal "not [ a ] body"\n'
                           "\t^ self new add: anAnimal; yourself")
    assert (made.class_side, made.protocol) == (True, "as yet unclassified")
    assert holds.source.endswith("x = ']''[' ] ] ]") and not holds.class_side
    assert plus == MethodRecord("+ other ^ other ", "Cage", False, "*Zoo-Extras", "Zoo-Core",
                                "zoo", "MIT", HERE.path)


def test_the_third_version_names_package_and_tag():
    cage, size = records(THIRD_VERSION)
    assert (cage.package, cage.category) == ("Zoo-Core", "Zoo-Core-Rooms")
    assert (size.source, size.protocol, size.package) == ("size\n\t^ 1", "accessing", "Zoo-Core")


@pytest.mark.parametrize(("header", "side"), [
    ("TCage classSide >> a", True), ("TCage class >> a", True), ("TCage >> a", False),
    ("Core.Cage class >> a", True),
])
def test_sides(header, side):
    (method,) = records(f"Trait {{ #name : #TCage }}\n{{ #category : #x }}\n{header} [ ]",
                        kind=MethodRecord)
    assert (method.class_side, method.class_name) == (side, header.split()[0])


def test_extensions_and_packages_define_no_class():
    assert records("Extension { #name : #Object }") == []
    assert records("Package { #name : #'Zoo-Core' }\n") == []


def test_tonel_within_a_string_is_no_second_method():
    inner = "{ #category : #b }\nCage >> b [\n\t^ 2\n]\n"
    (method,) = records(f"Extension {{ #name : #Cage }}\n\n{{ #category : #a }}\n"
                        f"Cage >> a [\n\t^ '\n{inner}'\n]\n")
    assert method.source == f"a\n\t^ '\n{inner}'"


@pytest.mark.parametrize(("damage", "kept", "reason"), [
    (("'x' ].", "'x ]."), 2, "never closed"),
    (("Cage >> second", "Cage second"), 2, "no method header"),
    (("#name : #Cage", "#name #Cage"), 3, "class map is damaged"),
    (("{ #category : #b }", "{ #category  #b }"), 2, "':' missing"),
])
def test_a_damaged_file_keeps_what_can_be_read(damage, kept, reason):
    text = "Class { #name : #Cage }\n" + "".join(
        f"\n{{ #category : #{protocol} }}\nCage >> {name} [\n\t[ 'x' ].\n]\n"
        for protocol, name in zip("abc", ("first", "second", "third"), strict=True))
    head, tail = text.split("{ #category : #b }")
    tail = "{ #category : #b }" + tail
    whole = text.replace(*damage, 1) if damage[0] in head else head + tail.replace(*damage, 1)
    found = list(read_tonel(whole, HERE))
    assert sum(isinstance(record, MethodRecord) for record in found) == kept
    (skipped,) = [record for record in found if isinstance(record, Skipped)]
    assert reason in skipped.reason and skipped.path == HERE.path


def test_ston():
    value, end = read_ston("{ #a : [ 'it\\'s', #b, nil, true ], #'c d' : {}, #e : 'x''\\u0041' } ")
    assert value == {"a": ["it's", "b", None, True], "c d": {}, "e": "x'A"} and end == 66
    for bad in ("", "{ #a }", "[ 'a'", "'open", "}", "{ [] : 'b' }"):
        with pytest.raises(ValueError, match="at character"):
            read_ston(bad)


@pytest.mark.parametrize(("source", "selector"), [
    ("size\n\t^ 1", "size"), ("at: key put: value\n\t^ 2", "at:put:"), ("+ other ^ 1", "+"),
    ('at: k "first: x" put:\n\tv ^ 1', "at:put:"), ('"said: before" name', "name"),
    ("--> a\n", "-->"), ("| a\n ^ b", "|"), ("größe: ä", "größe:"), ("^ 3", ""), ("", ""),
    ("name := 3", "name"), ("at: 3", ""),
])
def test_selectors(source, selector):
    assert selector_of(source) == selector


@pytest.mark.parametrize(("data", "text", "encoding"), [
    ("é\r\nb\rc".encode(), "é\nb\nc", "utf-8"), (b"\xef\xbb\xbfab", "ab", "utf-8"),
    ("aé".encode("utf-32-be"), "aé", "utf-32-be"), ("aé".encode("utf-16"), "aé", "utf-16"),
    ("né".encode("latin-1"), "né", "latin-1"), ("né\r".encode("mac-roman"), "né\n", "mac-roman"),
    ("“x”\r\n".encode("cp1252"), "“x”\n", "cp1252"), (b"", "", "utf-8"),
])
def test_encodings(data, text, encoding):
    assert decode(data) == (text, encoding)


def test_a_binary_file_is_refused():
    with pytest.raises(ValueError, match="binary"):
        decode(b"ab\0cd")


NAMES = st.sampled_from(["Cage", "Den", "Keeper", "Zoo2", "A", "ÄÖ", "_x"])
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x00"),
                max_size=12)
PARTS = st.sampled_from(["[ :x | x ]", "'it''s ]'", '"a ] comment [ \'"', "$[", "$'", '$"', "#[1]",
                         "\n\t", " ", "é", "!"])
SOURCES = st.builds(
    lambda pattern, body: pattern + "".join(body),
    st.sampled_from(["size", "at: k put: v", "+ x", 'at: "[" k']),
    st.lists(PARTS, max_size=8).map(lambda parts: ["\n\t", *parts]))


@st.composite
def libraries(draw):
    """One package: some of its classes, methods of these and of a class that lies elsewhere."""
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=str.lower))
    variables = st.lists(NAMES, max_size=3).map(tuple)
    classes = [ClassRecord(
        name, superclass=draw(NAMES), instance_variables=draw(variables),
        class_variables=draw(variables), pools=draw(variables), comment=draw(WORDS),
        category="Zoo-Core-Rooms", package="Zoo-Core", is_trait=draw(st.booleans()))
        for name in names[1:]]
    methods = [
        MethodRecord(draw(SOURCES), draw(st.sampled_from(names)), draw(st.booleans()),
                     draw(WORDS), package="Zoo-Core")
        for _ in range(draw(st.integers(0, 4)))]
    return classes, methods


@settings(max_examples=40, deadline=None)
@given(libraries())
def test_what_is_written_is_read_back(library):
    classes, methods = library
    found = [replace(record, path="") for path, text in write_tonel(classes, methods).items()
             for record in read_tonel(text, Origin(path))]
    assert [r for r in found if isinstance(r, ClassRecord)] == classes
    back = [r for r in found if isinstance(r, MethodRecord)]
    assert sorted(back, key=repr) == sorted(methods, key=repr) and len(found) == len(
        classes) + len(methods)


def test_tonel_cannot_hold_a_method_whose_brackets_do_not_match():
    for source, reason in [("a ^ [", "brackets"), ("a ^ ]", "brackets"), ("^ 3", "no message")]:
        with pytest.raises(ValueError, match=reason):
            write_tonel([], [MethodRecord(source, "Cage", False)])
