"""The companions of chapter 09's data: a small corpus through tokenizer and examples, and back."""

import json
from dataclasses import replace

import pytest
from test_smalltalk_tasks import CLASSES, METHODS
from test_smalltalk_tokenizer import TOKENIZER

from scratchbook.companions import smalltalk_datasets, smalltalk_tokenizers
from scratchbook.data.packing import pack_documents
from scratchbook.data.smalltalk_corpus import save_corpus
from scratchbook.smalltalk import tasks
from scratchbook.smalltalk.parts import END_OF_TEXT, SPECIAL_TOKENS
from scratchbook.smalltalk.preparing import Funnel
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from scratchbook.tokenizers.splits import Splitter

PROJECTS = sorted({method.project for method in METHODS})
HELD = {"test": PROJECTS[:2], "validation": PROJECTS[2:4], "train": PROJECTS[4:]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    parts = {split: [each for each in METHODS if each.project in names]
             for split, names in HELD.items()}
    split_of = {name: split for split, names in HELD.items() for name in names}
    save_corpus(folder, parts, [(split_of[each.project], each) for each in CLASSES], Funnel())
    return folder


def test_the_tokenizer_learns_from_training_projects_only(corpus):
    texts = smalltalk_tokenizers.training_texts(corpus)
    own = [method.source for method in tasks.formatted(METHODS)
           if method.project in HELD["train"]]
    own += [tasks.definition_of(each) for each in CLASSES if each.project in HELD["train"]]
    assert sorted(texts) == sorted(own)
    assert texts != own  # in an order of chance
    few = smalltalk_tokenizers.training_texts(corpus, characters=5_000)
    assert few == texts[: len(few)]
    assert 5_000 <= sum(map(len, few)) < 5_000 + len(few[-1])


def test_a_comparison_is_counted_by_hand(corpus):
    projects = smalltalk_tokenizers.held_out(corpus)
    assert set(projects) == {*HELD["test"], *HELD["validation"]}
    texts = smalltalk_tokenizers.training_texts(corpus)
    ours, plain = (make().train(texts, 1200, SPECIAL_TOKENS)
                   for make in (SmalltalkTokenizer, BPETokenizer))
    tokenizers = {smalltalk_tokenizers.OURS: ours, **dict.fromkeys(
        smalltalk_tokenizers.TARGETS, plain)}
    found = smalltalk_tokenizers.compare(tokenizers, projects)
    name, methods = next(iter(projects.items()))
    expected = sum(len(m.source) for m in methods) / sum(len(plain.encode(m.source))
                                                        for m in methods)
    assert found["chars_per_token"][smalltalk_tokenizers.PLAIN][name] == pytest.approx(expected)
    ratios = found["ratios"][smalltalk_tokenizers.PLAIN]
    assert ratios["low"] < ratios["mean"] < ratios["high"]
    assert ratios["mean"] == pytest.approx(
        sum(ratios["by_project"].values()) / len(projects))
    assert "times as many: " in smalltalk_tokenizers.lines(found)[0]


def test_whole_line_breaks_are_all_that_the_second_rival_adds():
    cut, plain = smalltalk_tokenizers.LayoutSplitter(), Splitter("gpt2")
    text = "foo  \n\n\t\t^ self at: 1 é\n\tbar"
    assert cut.split(text) == ["foo", "  \n\n\t\t", "^", " self", " at", ":", " 1", " é", "\n\t",
                               "bar"]
    assert "".join(cut.split(text)) == text and list(cut.blocks(text)) == [cut.split(text)]
    line = "foo: x ^ self  at: x  "
    assert cut.split(line) == plain.split(line)
    tokenizer = smalltalk_tokenizers.with_whole_breaks().train([text] * 9, 270, SPECIAL_TOKENS)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert b"\n\t" in tokenizer.ranks


@pytest.mark.parametrize(("ours", "verdict"), [
    ([1.5, 1.51, 1.5], "met"), ([1.2, 1.21, 1.2], "missed"), ([1.2, 1.5, 1.4], "not settled")])
def test_a_target_is_met_by_the_interval(ours, verdict):
    names = ["a", "b", "c"]
    found = smalltalk_tokenizers.ratio(dict(zip(names, ours, strict=True)),
                                       dict.fromkeys(names, 1.0), 1.35)
    assert found["verdict"] == verdict


def test_round_trips_are_counted():
    tokenizer = SmalltalkTokenizer()
    assert smalltalk_tokenizers.round_trips(tokenizer, METHODS[:9]) == {
        "methods": 9, "parsed": 9, "same_tree": 9, "same_text": 9}


def test_examples_are_built_counted_and_audited(corpus):
    numbers = smalltalk_datasets.measure(corpus, 150)
    json.dumps(numbers)
    for split, sets in numbers["account"].items():
        assert set(sets) == {"next token", "fill in", "class generation", "bug fixing",
                             "instructions"}
        assert all(found["examples"] for found in sets.values()), split
    assert sum(numbers["account"]["test"]["bug fixing"]["labels"].values()) == \
        numbers["account"]["test"]["bug fixing"]["examples"]
    assert all(found["exact"] == 0 for found in numbers["audit"].values())
    assert "told exactly" in smalltalk_datasets.lines(numbers)[-1]


def test_a_planted_leak_is_dropped_and_an_overlooked_one_is_found():
    own = [each for each in METHODS if each.project in HELD["test"]][:60]
    others = [each for each in METHODS if each.project in HELD["train"]][:60]
    copied = [replace(each, source=each.source.replace("\n", "\n\n", 1)) for each in own[:20]]
    held = smalltalk_datasets.build([], own)
    splits = {"train": smalltalk_datasets.build([], others + copied), "test": held,
              "validation": smalltalk_datasets.build([], [])}
    leaky = smalltalk_datasets.audit(splits)
    clean, dropped = smalltalk_datasets.without_leaks(splits)
    assert dropped
    assert leaky["test: fill in"]["exact"] > 5
    assert leaky["test: bug fixing"]["near"] > 0
    after = smalltalk_datasets.audit(clean)
    assert after["test: fill in"]["exact"] == after["test: bug fixing"]["exact"] == 0


def test_classes_stay_together():
    kept = smalltalk_datasets.some_classes(METHODS, 100)
    whole = tasks.methods_by_class(METHODS)
    assert all(group == whole[key] for key, group in tasks.methods_by_class(kept).items())
    assert 100 <= len(kept) < 200


def test_documents_are_packed_with_their_boundaries():
    examples = list(tasks.next_token(CLASSES, METHODS[:150]))
    documents = [TOKENIZER.encode_parts(example.parts)[0] for example in examples]
    end = TOKENIZER.special_tokens[END_OF_TEXT]
    assert all(ids.count(end) == 1 and ids[-1] == end for ids in documents)
    rows = pack_documents([len(ids) for ids in documents], seq_len=256)
    laid = [[i for number, start, stop in row for i in documents[number][start:stop]]
            for row in rows]
    assert all(len(row) <= 256 for row in laid)
    assert sum(row.count(end) for row in laid) == len(documents)
    assert sorted(i for row in laid for i in row) == sorted(i for ids in documents for i in ids)
