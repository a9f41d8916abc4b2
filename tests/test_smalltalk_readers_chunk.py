"""Chunk files of four Smalltalks: doubled marks, headers, class definitions, later versions."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.smalltalk.readers import Origin, read_chunks
from scratchbook.smalltalk.readers.chunk import is_chunks, is_definition
from scratchbook.smalltalk.readers.class_messages import class_definition
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Skipped
from scratchbook.smalltalk.writers import write_chunks

HERE = Origin("zoo/Cage.st", project="zoo", licence="MIT")

SQUEAK = """'From Squeak5.3 of 3 March 2020'!
Object subclass: #Cage
	instanceVariableNames: 'animals keeper'
	classVariableNames: 'Open'
	poolDictionaries: ''
	category: 'Zoo-Core'!
Cage class
	instanceVariableNames: 'last'!

!Cage commentStamp: 'ab 1/2/2003' prior: 0!
I hold animals. Quiet!! Isn't it?!

!Cage class commentStamp: 'ab 1/2/2003' prior: 0!
I make cages!

!Cage methodsFor: 'saying' stamp: 'ab 1/2/2003 04:05'!
shout
	"loud!!"
	^ 'Ho!!', (String with: $!!)! !

!Cage methodsFor: 'it''s testing'!
+ x
	^ $ !

isOpen
	^ Open! !

!Cage class methodsFor: 'making' stamp: 'ab' prior: 12345!
for: x
	^ self new add: x! !

Cage initialize!
"""
CUIS = """'From Cuis7.7 [latest update: #7902] on 3 May 2026'!
'Description Some animals'!
!provides: 'Zoo' 1 4!
!requires: 'Food' 1 0 nil!
!classDefinition: #Cage category: #Core!
Object subclass: #Cage
	instanceVariableNames: ''
	classVariableNames: ''
	poolDictionaries: 'Colors'
	category: 'Core'!
!classDefinition: 'Cage class' category: #Core!
Cage class
	instanceVariableNames: ''!

!Cage methodsFor: 'a' stamp: 'x'!
feed: x
	n _ x! !
!Cage methodsFor: 'b' stamp: 'y' overrides: 16777216!
gone ^ 1! !
!methodRemoval: Cage #gone stamp: 'y'!
Cage removeSelector: #gone!
"""
DOLPHIN = """"Filed out from Dolphin Smalltalk"!

Core.Object subclass: #'Zoo.Cage'
	instanceVariableNames: 'animals'
	classVariableNames: ''
	imports: #(#{OS.Constants})
	classInstanceVariableNames: 'last'
	classConstants: { 'Size' -> 16r10 }!

Zoo.Cage guid: (Core.GUID fromString: '{0}')!
Zoo.Cage comment: 'I''m loud!!'!
!Zoo.Cage categoriesForClass!Zoo-Core! !
!Zoo.Cage methodsFor!

size
	^animals size!

add: x
	<stdcall: void _add>! !
!Zoo.Cage categoriesForMethods!
size!public! !
add:!adding!public! !
!
!Zoo.Cage class methodsFor!
new
	^super new! !
!Zoo.Cage class categoriesFor: #new!instance creation!public! !
"""


def records(text, kind=object, **origin):
    return [record for record in read_chunks(text, replace(HERE, **origin))
            if isinstance(record, kind)]


def test_squeak():
    cage, *methods = records(SQUEAK)
    assert cage == ClassRecord(
        "Cage", "Object", ("animals", "keeper"), ("Open",), ("last",), (),
        "I hold animals. Quiet! Isn't it?", "Zoo-Core", False, "zoo", "MIT", HERE.path, "squeak",
        package="Zoo-Core")
    assert [(m.source, m.class_side, m.protocol) for m in methods] == [
        ("shout\n\t\"loud!\"\n\t^ 'Ho!', (String with: $!)", False, "saying"),
        ("+ x\n\t^ $ ", False, "it's testing"), ("isOpen\n\t^ Open", False, "it's testing"),
        ("for: x\n\t^ self new add: x", True, "making")]
    assert {(m.class_name, m.dialect, m.package) for m in methods} == {
        ("Cage", "squeak", "Zoo-Core")}


def test_cuis_packages_and_removals():
    cage, feed = records(CUIS)
    assert (cage.name, cage.category, cage.pools) == ("Cage", "Core", ("Colors",))
    assert (feed.source, feed.package, feed.dialect) == ("feed: x\n\tn _ x", "Zoo", "cuis")


def test_dolphin_says_protocols_after_the_methods():
    cage, size, add, new = records(DOLPHIN)
    assert cage == ClassRecord(
        "Zoo.Cage", "Core.Object", ("animals",), (), ("last",), ("OS.Constants",), "I'm loud!",
        "Zoo-Core", project="zoo", licence="MIT", path=HERE.path, dialect="dolphin",
        package="zoo")
    assert [m.protocol for m in (size, add, new)] == ["", "adding", "instance creation"]
    assert add.source == "add: x\n\t<stdcall: void _add>" and new.class_side


def test_gnu_marks_stand_for_themselves_in_quotes():
    text = ("Object subclass: #Cage!\n!Cage methodsFor: 'x'!\n"
            "a ^ 'ho!' , (String with: $!) \"quiet! don't\"!\nb ^ 2! !")
    assert [m.source for m in records(text, MethodRecord, dialect="gnu")] == [
        "a ^ 'ho!' , (String with: $!) \"quiet! don't\"", "b ^ 2"]


def test_the_last_version_of_a_method_wins():
    text = "".join(f"!Cage{side} methodsFor: 'p{n}' stamp: 'a' prior: {n}!\nsize\n\t^ {n}! !\n"
                   for n, side in enumerate(["", "", " class", ""]))
    inst, meta = records(text + "----QUIT----!")
    assert (inst.source, inst.protocol) == ("size\n\t^ 3", "p3")
    assert (meta.source, meta.class_side) == ("size\n\t^ 2", True)
    for defined in (text, SQUEAK):
        assert records(defined + "Smalltalk removeClassNamed: #Cage!") == []
    assert records(text + "Cage class removeSelector: #size!") == [inst]


def test_a_starred_protocol_names_the_package_of_an_extension():
    (method,) = records("!Int methodsFor: '*Zoo-Core'!\na ^ 1! !")
    assert (method.package, method.protocol) == ("Zoo-Core", "*Zoo-Core")


def test_damage_is_said_and_the_rest_kept():
    kept, = records("!Cage methodsFor: 'x'!\na ^ 1!\n^ 3!\n\nb ^ 'cut of", MethodRecord)
    assert kept.source == "a ^ 1"
    first, second = records("!Cage methodsFor: 'x'!\na ^ 1!\n^ 3!\n\nb ^ 'cut of", Skipped)
    assert "line 2" in first.reason and "no message pattern: '^ 3'" in first.reason
    assert "ends inside a method of Cage" in second.reason


def test_a_chunk_file_is_known_by_its_headers():
    assert is_chunks(SQUEAK) and is_chunks(CUIS) and is_chunks(DOLPHIN)
    definition = "Object subclass: #A instanceVariableNames: ''!"
    assert is_definition(definition) and not is_chunks(definition)
    assert not is_chunks("Class { #name : #A }") and not is_chunks("Transcript show: 'hi!'")


@pytest.mark.parametrize(("text", "expected"), [
    ("Object << #Cage slots: { #a. #b => WeakSlot. #c }; sharedVariables: { #D }; "
     "tag: 'Rooms'; package: 'Zoo'",
     {"superclass": "Object", "instance_variables": ("a", "b", "c"), "class_variables": ("D",),
      "category": "Zoo-Rooms", "package": "Zoo"}),
    ("Trait named: #Cage uses: {} category: 'Zoo'", {"is_trait": True, "category": "Zoo"}),
    ("Trait << #Cage package: 'Zoo'", {"is_trait": True, "superclass": ""}),
    ('"c" nil variableSubclass: #Cage instanceVariableNames: \'\' package: \'Zoo\'',
     {"superclass": "nil", "instance_variables": (), "package": "Zoo"}),
    ("Smalltalk.Zoo defineClass: #Cage superclass: #{Core.Object} indexedType: #none "
     "private: false instanceVariableNames: 'a ' classInstanceVariableNames: 'b' imports: '' "
     "category: 'Z'", {"superclass": "Core.Object", "instance_variables": ("a",),
                       "class_instance_variables": ("b",), "category": "Z"}),
])
def test_definitions_in_every_form(text, expected):
    facts = class_definition(text)
    assert facts["name"] == "Cage" and expected.items() <= facts.items()


def test_what_is_no_definition():
    for text in ("Cage new subclass", "Cage initialize", "Cage class slots: { #a }", ""):
        assert class_definition(text) is None


NAMES = st.sampled_from(["Cage", "Den", "Keeper", "Zoo2", "A", "ÄÖ", "_x"])
TEXTS = st.lists(st.sampled_from(["!", "'", '"', "a", " ", "[", "é", "\n\t", "!!"]),
                 max_size=8).map("".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(NAMES, TEXTS, st.booleans()), min_size=1, max_size=4,
                unique_by=lambda drawn: drawn[0]),
       st.lists(st.tuples(TEXTS, st.booleans(), st.sampled_from("pq!'")), max_size=5))
def test_what_is_written_is_read_back(drawn, bodies):
    """Whatever stands in a body: its own marks, quotes that do not match, the format's marks."""
    classes = [ClassRecord(name, "Object", (name,), (), ("x",) * side, (), comment.strip(),
                           "Zoo-Core", package="Zoo-Core", dialect="squeak")
               for name, comment, side in drawn]
    methods = [MethodRecord(f"m{n}: x\n\t^{body}".rstrip(), drawn[n % len(drawn)][0], side,
                            protocol, "Zoo-Core", dialect="squeak")
               for n, (body, side, protocol) in enumerate(bodies)]
    found = list(read_chunks(write_chunks(classes, methods), Origin()))
    assert found == [*classes, *methods]


def test_superclasses_come_first():
    pair = [ClassRecord("Cage", "Room", category="Z"), ClassRecord("Room", "Object", category="Z")]
    assert [record.name for record in records(write_chunks(pair, []))] == ["Room", "Cage"]
    with pytest.raises(ValueError, match="a circle: Cage"):
        write_chunks([ClassRecord("Cage", "Cage")], [])
