"""Cutting methods and scoring what a model writes instead of the rest."""

import pytest

from scratchbook.smalltalk.completing import (
    CompletionCase,
    completion_cases,
    first_statement,
    outermost,
    score,
    without_thought,
)
from scratchbook.smalltalk.parser import parse_expression

SOURCE = ("sum: all\n\t| total |\n\ttotal := 0.\n"
          "\tall do: [:x | total := total + x size].\n\t^ total")


def test_a_case_is_the_method_cut_in_two():
    for seed in range(30):
        [case] = completion_cases([SOURCE], seed)
        assert SOURCE.startswith(case.prompt + case.expected)
        assert case.prompt.endswith(case.begun)
        assert case.begun.strip() and case.expected.strip()
        assert all(score(case, case.expected + ". self other"))


def test_a_cut_inside_a_block_belongs_to_the_blocks_own_statement():
    begun = {case.begun.strip() for seed in range(200)
             for case in completion_cases([SOURCE], seed)}
    assert {"all do:", "all do: [:x |", "total := total +", "^"} <= begun
    assert not any(each.startswith("all do: [:x | total") for each in begun)


def test_cases_follow_the_seed_and_leave_out_what_is_trivial_or_broken():
    sources = ["name ^ name", "broken ^ (", SOURCE]
    assert len(completion_cases(sources, 1)) == 1
    assert completion_cases([SOURCE] * 9, 1) == completion_cases([SOURCE] * 9, 1)
    assert len(set(completion_cases([SOURCE] * 30, 1))) > 5


CASE = CompletionCase("foo ^ self at:", "^ self at:", " 1 put: (2 + 3)")


@pytest.mark.parametrize(("answer", "expected"), [
    (" 1 put: (2 + 3)", (True, True, True)),
    (" 1 put: (2 + 3) ", (True, True, True)),
    (" 1 put: (2 + 3) ] value: 4", (True, True, True)),
    (" 1 put: (2 + 3)\n\t. ^ nil", (True, True, True)),
    ("1  put:(2+3). ^ nil", (True, True, True)),
    (" 1 put: 2 + 3", (False, True, True)),
    (" 7 put: nil", (False, False, True)),
    (" 1", (False, False, False)),
    (" 1 put: (", (False, False, False)),
    ("", (False, False, False)),
])
def test_scores_from_strict_to_lenient(answer, expected):
    assert tuple(score(CASE, answer)) == expected


def test_only_the_first_statement_of_an_answer_counts():
    assert first_statement("x foo: [", "a. b]. c") == "a. b]"
    assert first_statement("x foo:", " a ] . b") == " a "
    assert first_statement("x foo:", " 1.5 + $. , '.'. b") == " 1.5 + $. , '.'"
    assert first_statement("x foo:", " 'never closed") == " 'never closed"
    assert first_statement("x foo:", " $( bar. y") == " $( bar"
    assert first_statement("x foo: $[ ,", " ')' , #(1 (2)) at: 1] z") == " ')' , #(1 (2)) at: 1"


def test_outermost_selectors():
    def of(source):
        return outermost(parse_expression(source))
    assert of("^ a := b foo at: (c bar)") == "at:"
    assert of("a b; c: 1; + 2") == "b;c:;+"
    assert of("a") == of("") == ""


@pytest.mark.parametrize(("begun", "answer"), [
    ("self foo: (a bar: [ b", "])"), ("self foo:", " x"), ("x := #(1 $( 2", ")"),
    ("{ a. (b at: '('", ")}"), ("a do: [ :x | x +", " x]"), ("^ ", " x")])
def test_what_a_program_of_one_line_answers(begun, answer):
    assert without_thought(begun) == answer
