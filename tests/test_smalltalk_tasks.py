"""Training examples: each task by hand, then what holds for a whole library."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from test_smalltalk_tokenizer import LIBRARY, TOKENIZER

from scratchbook.smalltalk import parts, tasks
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.mutations import BREAKING
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.printer import format_method
from scratchbook.smalltalk.readers import Origin, read_tonel
from scratchbook.smalltalk.records import ClassRecord, MethodRecord

RECORDS = [record for path in sorted(LIBRARY.rglob("*.st"))
           for record in read_tonel(path.read_text(encoding="utf-8"),
                                    Origin(path.name, project=path.parent.name))]
METHODS = [each for each in RECORDS if isinstance(each, MethodRecord)]
CLASSES = [each for each in RECORDS if isinstance(each, ClassRecord)]
POINT = ClassRecord("Spot", "Object", ("x", "y"), category="Shapes",
                    comment='I am a "place" of the plane.', project="p")
SETTER = MethodRecord("x: aNumber\n\tx := aNumber", "Spot", False, project="p")
MAKER = MethodRecord('x: aNumber\n\t"Answer a spot with this x."\n\n\t^ self new\n\t\tx: aNumber;'
                     "\n\t\tyourself", "Spot", True, project="p")
BUILDERS = {
    "next token": lambda methods, seed: tasks.next_token(CLASSES, methods),
    "fill in": tasks.fill_in,
    "class generation": lambda methods, seed: tasks.class_generation(CLASSES, methods),
    "bug fixing": tasks.bug_fixing, "instructions": tasks.instructions}
EXAMPLES = {name: list(build(METHODS[:400], 0)) for name, build in BUILDERS.items()}


# by hand


def test_a_document_of_a_class():
    [example] = tasks.next_token([POINT], [SETTER, MAKER])
    assert example.text == (
        "<|class|>Object subclass: #Spot\n\tinstanceVariableNames: 'x y'\n\tclassVariableNames: ''"
        "\n\tpackage: 'Shapes'\n\"I am a \"\"place\"\" of the plane.\"<|end|>"
        f"<|method|>{SETTER.source}<|end|><|classmethod|>{MAKER.source}<|end|><|endoftext|>")
    assert example.prompt == ""
    [lone] = tasks.next_token([], [SETTER])
    assert lone.text == f"<|method|>{SETTER.source}<|end|><|endoftext|>"


def test_a_class_of_another_project_is_not_taken_for_it():
    [example] = tasks.next_token([replace(POINT, project="q")], [SETTER])
    assert "Spot" not in example.text


def test_a_method_with_a_hole():
    method = replace(SETTER, source="foo\n\tself a.\n\tself b: 1")
    labels = {}
    for seed in range(40):
        [example] = tasks.fill_in([method], seed)
        prefix, _, rest = example.prompt.removeprefix(parts.PREFIX).partition(parts.SUFFIX)
        hole = example.answer.removesuffix(parts.END)
        assert prefix + hole + rest.removesuffix(parts.MIDDLE) == method.source
        labels.setdefault(example.label, set()).add(hole)
    assert labels["body"] == {"self a.\n\tself b: 1"}
    assert labels["statements"] <= {"self a", "self b: 1", "self a.\n\tself b: 1"}
    assert len(labels["tokens"]) > 3
    assert list(tasks.fill_in([replace(SETTER, source="x\n\t^ x")])) == []  # trivial


def test_a_class_to_be_written():
    [example] = tasks.class_generation([POINT], [SETTER, MAKER])
    assert example.prompt.endswith('of the plane."<|end|>')
    assert example.answer.startswith("<|method|>x: aNumber")
    assert example.answer.count(parts.END) == 2
    assert not list(tasks.class_generation([replace(POINT, comment="")], [SETTER, MAKER]))
    assert not list(tasks.class_generation([POINT], [SETTER]))
    assert not list(tasks.class_generation([POINT], [SETTER, MAKER], most_characters=50))


def test_a_comment_becomes_the_prompt_and_leaves_the_method():
    found = {}
    for seed in range(20):
        [example] = tasks.instructions([MAKER, SETTER], seed)
        found[example.label] = example.prompt
        assert example.answer == "x: aNumber\n\t^ self new\n\t\tx: aNumber;\n\t\tyourself<|end|>"
    assert found == {
        "template 1": "<|instruction|>Write a method of Spot class. Answer a spot with this x."
                      "<|answer|>",
        "template 2": "<|instruction|>Spot class >> x:\nAnswer a spot with this x.<|answer|>",
        "template 3": "<|instruction|>Answer a spot with this x.\nThe method belongs to Spot class."
                      "<|answer|>"}


@pytest.mark.parametrize("text", [
    "Answer the receiver's name.", "Hand over all elements, the oldest first; stop at the end.",
    "This is called when a window is closed", "Return true if x > 3 and y < 4."])
def test_prose(text):
    assert tasks.is_prose(text)


@pytest.mark.parametrize("text", [
    "", "TODO answer the name of it", "self foo. self bar is the way", "x := 3. the end of it is",
    "answer: #(1 2) in a list", "see http://example.org for the details of it",
    "ar 1/2/2001 12:30 the a of", "----------- the --- a ----- of ------", "^ self the of a and",
    "[ :x | the of a and ]",
    "Crée une nouvelle instance avec ceci", "the of", "a " * 300, "accessor foo bar baz"])
def test_no_prose(text):
    assert not tasks.is_prose(text)


@pytest.mark.parametrize(("source", "bare"), [
    ('foo\n\t"Why it is."\n\t^ 1', "foo\n\t^ 1"), ('foo\n\t"Why."\n\n\t^ 1', "foo\n\t^ 1"),
    ('foo\n\t"Why." ^ 1', "foo ^ 1"), ('foo "Why."\n\t^ 1', "foo\n\t^ 1"),
    ('foo\n\t| a |\n\t"Why."\n\t^ a', "foo\n\t| a |\n\t^ a"),
])
def test_a_comment_leaves_with_its_line(source, bare):
    assert tasks.without_comment(source, parse_method(source)) == bare


def test_the_key_of_code_knows_neither_comments_nor_space():
    assert tasks.code_key("a\n\t^ 1") == tasks.code_key('a "x" ^1') != tasks.code_key("a ^ 2")
    assert tasks.code_key("a b c") != tasks.code_key("ab c")


def test_what_held_out_text_tells_is_dropped():
    train = list(tasks.fill_in(METHODS[:60]))
    held = list(tasks.instructions(METHODS[:60]))
    kept = tasks.unseen(train, held)
    told = {key for example in held for key in example.keys}
    assert len(kept) < len(train)
    assert [example for example in train if example not in kept] == [
        example for example in train if set(example.keys) & told]


# the whole library


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_seed_gives_the_same_examples_in_any_company(name):
    assert list(BUILDERS[name](METHODS[:400], 0)) == EXAMPLES[name]
    if name in ("fill in", "instructions"):  # each method for itself
        assert list(BUILDERS[name](METHODS[:200], 0)) == EXAMPLES[name][: len(
            list(BUILDERS[name](METHODS[:200], 0)))]
        assert list(BUILDERS[name](METHODS[:400], 1)) != EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_becomes_ids_and_comes_back(name):
    assert EXAMPLES[name]
    for example in EXAMPLES[name]:
        assert example.task == name
        assert example.keys
        ids, learned = TOKENIZER.encode_parts(example.parts)
        assert TOKENIZER.decode(ids) == example.text
        assert len(learned) == len(ids)
        assert TOKENIZER.decode([i for i, yes in zip(ids, learned, strict=True) if yes]
                                ) == example.answer


def test_each_answer_is_what_its_task_says():
    for example in EXAMPLES["instructions"]:
        parse_method(example.answer.removesuffix(parts.END))
    for example in EXAMPLES["bug fixing"]:
        bug = example.parts[1].text
        assert bug != example.parts[3].text
        parse_method(example.parts[3].text)
        if example.label in BREAKING:
            with pytest.raises(SmalltalkSyntaxError):
                parse_method(bug)
        else:
            parse_method(bug)


def test_every_row_of_formatted_methods_is_formatted():
    own = list(tasks.formatted(METHODS[:300]))
    assert [parse_method(each.source) for each in own] == [
        parse_method(each.source) for each in METHODS[:300]]
    assert any(each.source != method.source for each, method in zip(own, METHODS, strict=False))

    def is_formatted(source: str) -> bool:
        return format_method(parse_method(source)) == source

    for example in tasks.instructions(own):
        assert is_formatted(example.answer.removesuffix(parts.END))
    for example in tasks.bug_fixing(own):
        assert is_formatted(example.parts[3].text)
    for example in tasks.fill_in(own):
        before, after, hole = (example.parts[place].text for place in (1, 3, 5))
        assert is_formatted(before + hole + after)
    for build in (tasks.next_token, tasks.class_generation):
        for example in build(CLASSES, own):
            for boundary, part in pairwise(example.parts):
                if boundary.text in (parts.METHOD, parts.CLASS_METHOD):
                    assert is_formatted(part.text)


def test_what_is_no_method_is_not_formatted():
    assert list(tasks.formatted([replace(SETTER, source="x: ^")])) == []


def test_bugs_are_balanced():
    counts = Counter(example.label for example in EXAMPLES["bug fixing"])
    rare = counts.pop("self for super", 0)  # few methods have a `super`
    assert max(counts.values()) - min(counts.values()) <= 8
    assert rare <= max(counts.values())
