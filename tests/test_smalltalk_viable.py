"""Which beginnings can still become a method."""

import random
from pathlib import Path

import pytest

from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk.viable import is_method, is_viable, longest_method

METHOD = ("at: i put: v\n\t\"doc it's\"\n\t| a |\n\t<primitive: 60 error: ec>\n"
          "\ta := #(1 $a foo #[1 2] #bar:) . a do: [:x | x := -3 + 16rFF. ^ x foo; bar: 'abc''d'; "
          "yourself].\n\t^ {1. 2r101. $'} - 3")


def test_every_beginning_of_a_method_is_viable():
    assert is_method(METHOD)
    assert [cut for cut in range(len(METHOD)) if not is_viable(METHOD[:cut])] == []


def test_every_beginning_of_the_library_s_methods_is_viable():
    library = Path(__file__).resolve().parent.parent / "data" / "smalltalk"
    methods = [record.source for record in read_folder(library, "course")
               if isinstance(record, MethodRecord)]
    lost = [source[:cut] for source in random.Random(1).sample(methods, 100)
            for cut in range(len(source)) if not is_viable(source[:cut])]
    assert lost == []


@pytest.mark.parametrize("source", [
    "foo )", "foo ^ self at: )", "foo ^ x ]", "foo | a | ^ a at: 'x' 'y'", "foo ^ 3 := ",
    "foo self; bar", "foo ^ #(1 2", "foo ^ 'abc", 'foo "a comment', "foo <primitive: x y",
])
def test_what_more_text_cannot_mend(source):
    """The first six are lost, the last four only unfinished: viable must tell them apart."""
    lost = source in ("foo )", "foo ^ self at: )", "foo ^ x ]", "foo | a | ^ a at: 'x' 'y'",
                      "foo ^ 3 := ", "foo self; bar")
    assert is_viable(source) is not lost


def test_a_string_may_only_begin_where_an_operand_may_stand():
    assert is_viable("foo ^ x at: 'ab")
    assert not is_viable("foo ^ 'ab' 'cd")


def test_the_longest_method_keeps_whole_statements():
    assert longest_method("foo\n\tself bar.\n\t^ self at: (") == "foo\n\tself bar.\n\t^ self"
    assert longest_method("foo self bar: [:x") == "foo self"
    assert longest_method("(") == ""


def test_an_unknown_dialect_is_refused():
    with pytest.raises(ValueError, match="dialect"):
        is_viable("foo", "scratch")
