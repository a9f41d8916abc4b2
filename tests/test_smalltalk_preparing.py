"""Cleaning, duplicates, leaks, balance, the split by families and the audit of a corpus."""

import hashlib
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchbook.data.dedupe import jaccard
from scratchbook.data.documents import load_documents
from scratchbook.data.similar_methods import (
    closest,
    method_shingles,
    method_tokens,
    similar_sets,
)
from scratchbook.data.smalltalk_corpus import (
    audit,
    load_classes,
    load_methods,
    prepare,
    save_corpus,
)
from scratchbook.smalltalk.collecting import Checkout
from scratchbook.smalltalk.preparing import (
    Funnel,
    capped,
    cleaned,
    content_hash,
    gini,
    in_style,
    objection,
    syntax_objection,
    with_assignments,
)
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Skipped


def method(source: str, project: str = "a/one", name: str = "Account", **more) -> MethodRecord:
    return MethodRecord(source, name, False, project=project, licence="MIT", package="Bank", **more)


def invented(seed: int, statements: int = 6) -> str:
    """A method of words that no other seed draws, long enough to be compared."""
    draw = random.Random(seed)
    lines = [f"\tw{draw.randrange(10**9)} := v{draw.randrange(10**9)} m{draw.randrange(10**9)}: "
             f"u{draw.randrange(10**9)}." for _ in range(statements)]
    return f"do{seed}\n" + "\n".join(lines)


def parse(source: str, dialect: str) -> None:
    """As much of a judge as these tests need: brackets must match, `##(` is Dolphin's."""
    if source.count("[") != source.count("]") or ("##(" in source and dialect != "dolphin"):
        raise ValueError("no")


def corpus(files: dict[str, list], splits: dict[str, str] | None = None, **more):
    checkouts = [Checkout(name, split=(splits or {}).get(name, "train")) for name in files]
    return prepare(checkouts, lambda checkout: files[checkout.name], parse,
                   **{"cap": 1.0, **more})


def names(records):
    return [record.source.split("\n")[0] for record in records]


def test_line_ends_marks_and_blank_lines_go_and_nothing_else():
    record = method("\ufeff\r\n  \r\nfoo\r\n\t^ 'a\r b'  \r\n\r\n")
    assert cleaned(record).source == "foo\n\t^ 'a\n b'"
    assert cleaned(method("foo ^1")) == method("foo ^1")


@pytest.mark.parametrize(("old", "new"), [
    ("a _ 3", "a := 3"), ("a_3", "a_3"), ("foo_bar _ _baz", "foo_bar := _baz"),
    ("a _ ' _ '", "a := ' _ '"), ('a _ " _ "', 'a := " _ "'), ("a _ $_ ", "a := $_ "),
    ("a _\n\tb", "a :=\n\tb"), ("[:_ | 1]", "[:_ | 1]"), ("a _ 'it''s _ '", "a := 'it''s _ '"),
    ("a _ #_ ", "a := #_ "),
])
def test_the_old_arrow_becomes_an_assignment_where_it_is_one(old, new):
    assert with_assignments(old) == new
    assert cleaned(method(old, dialect="squeak")).source == new.strip()
    assert cleaned(method(old, dialect="pharo")).source == old.strip()


@pytest.mark.parametrize(("source", "reason"), [
    ("", "empty"), ("foo ^ 'x" + "y" * 8000 + "'", "longer than 8,000 characters"),
    ("foo ^ 'a\x00b'", "control or replacement characters"),
    ("foo ^ '\ufffd'", "control or replacement characters"),
    ("foo ^ '\ud800'", "control or replacement characters"), ("DoIt\n\t^ 3", "doIt"),
    ("DoItIn: aContext ^ 3", "doIt"),
    ("stepd830d99017a1b2c3 ^ 1", "name ends in 16 hexadecimal digits"),
    ("foo\n\t<generated>\n\t^ 1", "says that it is generated"),
    ('foo\n\t"Automatically generated. Do not edit"\n\t^ 1', "says that it is generated"),
    ("table\n\t^ #(" + "12 " * 500 + ")", "data, not code"),
    ("picture\n\t^ '" + "QUJD" * 400 + "'", "data, not code"),
    ("foo\n\t^ 1", ""), ("step ^ #(1 2 3)", ""), ("cafebabe ^ 1", ""),
    ("foo: aNumber\n\t\"Generates a number, edited by hand\"\n\t^ aNumber", ""),
    ("DoItLater ^ 1", ""), ("doIt ^ 1", ""), ("DoIt: x ^ 1", ""), (invented(1, 40), ""),
])
def test_what_is_not_wanted_is_named(source, reason):
    assert objection(method(source)) == reason


def test_data_are_nine_tenths_of_a_text_and_code_may_hold_the_rest():
    for share, reason in ((850, ""), (899, ""), (900, "data, not code"), (950, "data, not code")):
        text = "x" * (1_000 - share) + ")" * share
        assert objection(method(text)) == reason


@pytest.mark.parametrize(("protocol", "reason"), [
    ("generated", "says that it is generated"), ("accessing", ""), ("regenerated", ""),
    ("generated-reduction actions", "says that it is generated"), ("generating", ""),
    ("**auto generated**", "says that it is generated")])
def test_a_protocol_may_say_that_a_program_wrote_it(protocol, reason):
    assert objection(method("foo ^ 1", protocol=protocol)) == reason


@pytest.mark.parametrize(("source", "otherwise"), [
    ("a ^ UI.View new", True), ("a ^ ##(1 + 2)", True), ("a ^ View new. ^ View", False),
    ("a ^ 'UI.View' , 1.5e3", False), ('a "UI.View" ^ View', False), ("a x := y.\tz", False),
    ("a ^ View.", False), ("a ^ $# -> #(1)", False)])
def test_what_pharo_reads_otherwise_is_no_pharo(source, otherwise):
    assert bool(syntax_objection(method(source, dialect="dolphin"))) == otherwise
    assert syntax_objection(method(source)) == ""  # in Pharo it says what it says


def test_methods_equal_but_for_white_space_are_one_and_the_first_stays():
    parts, _, funnel = corpus({"a/one": [method("foo\n\t^ 1"), method("foo ^  1"),
                                         method("foo ^ 2")]})
    assert [r.source for r in parts["train"]] == ["foo\n\t^ 1", "foo ^ 2"]
    assert funnel.reasons == {"equal to an earlier method": 1}


def test_what_one_style_makes_equal_is_compared_once_more():
    files = {"a/one": [method("foo ^1"), method("foo ^ 1"), method("bar ^2"), method("baz ^3")],
             "b/two": [method("bar ^ 2", "b/two")]}
    parts, _, funnel = corpus(files, {"b/two": "test"}, layout=in_style)
    assert [r.source for r in parts["train"]] == ["foo\n\t^ 1", "baz\n\t^ 3"]
    assert names(parts["test"]) == ["bar"] and funnel.facts["audit"]["test"]["exact"] == 0
    assert funnel.reasons == {"in one style, equal to an earlier method": 1,
                              "in one style, equal to a held-out method": 1}
    assert funnel.total("not equal in one style").methods == 3
    as_written, _, _ = corpus(files, {"b/two": "test"})  # the hash alone tells them apart
    assert len(as_written["train"]) == 4


def planted(seed: int) -> list[str]:
    """A method and three that are nearly it: another literal, another comment, one word."""
    source = invented(seed, 12)
    last = source.rindex(":= ")
    return [source + "\n\tx := 3", source + "\n\tx := 47", f'{source}\n\t"why"\n\tx := 3',
            source[:last] + ":= other" + source[last + 2:] + "\n\tx := 3"]


def test_a_family_on_two_sides_is_refused_before_anything_is_read():
    checkouts = [Checkout("a/one", family="f"), Checkout("b/two", family="f", split="test")]
    with pytest.raises(ValueError, match="family 'f' is split"):
        prepare(checkouts, lambda checkout: 1 / 0, parse)


def test_the_sides_of_the_table_are_kept_and_projects_stay_whole():
    files = {f"p/{n}": [method(invented(50 * n + k), f"p/{n}") for k in range(20)]
             for n in range(6)}
    parts, _, _ = corpus(files, {"p/4": "test", "p/1": "validation"})
    assert {split: {r.project for r in records} for split, records in parts.items()} == {
        "test": {"p/4"}, "validation": {"p/1"}, "train": {"p/0", "p/2", "p/3", "p/5"}}


def test_where_nothing_is_held_out_whole_packages_are():
    files = {"own": [MethodRecord(invented(n), f"C{n % 80}", False, package=f"P{n % 40}",
                                  project="own") for n in range(800)] + [Skipped("x", "y")]}
    parts, _, funnel = corpus(files)
    packages = {split: {r.package for r in records} for split, records in parts.items()}
    assert sum(map(len, packages.values())) == 40  # none is on two sides
    assert all(3 <= len(packages[split]) <= 5 for split in ("test", "validation"))
    assert funnel.facts["not_read"]["own"]["count"] == 1
    parts, _, _ = corpus({"own": files["own"][:1]})
    assert len(parts["train"]) == 1  # one package alone stays for training


def test_planted_near_duplicates_all_go_and_strangers_stay():
    files = {"a/one": [method(text) for seed in range(60) for text in planted(seed)]
             + [method(invented(seed)) for seed in range(1000, 1100)]}
    parts, _, funnel = corpus(files)
    assert len(parts["train"]) == 160 and funnel.reasons["resembles an earlier method"] == 180


def test_planted_leaks_go_from_training_and_stay_in_the_test():
    leaked = [planted(seed) for seed in range(20)]
    files = {"a/one": [method(text) for texts in leaked for text in texts]
             + [method(invented(seed)) for seed in range(1000, 1010)],
             "b/two": [method(texts[0], "b/two") for texts in leaked]}
    parts, _, funnel = corpus(files, {"b/two": "test"})
    assert len(parts["test"]) == 20 and len(parts["train"]) == 10
    assert funnel.reasons == {"equal to a held-out method": 20,
                              "resembles a held-out method": 60}
    assert funnel.facts["audit"]["test"] == {"methods": 20, "compared": 20, "exact": 0,
                                             "near": {"0.7": 0, "0.8": 0, "0.9": 0}}


def test_the_audit_finds_the_leaks_that_are_planted_behind_its_back():
    parts = {"train": [method(planted(seed)[1]) for seed in range(3)] + [method("foo ^  1")],
             "validation": [method(invented(50))],
             "test": [method(planted(seed)[0]) for seed in range(12)] + [method("foo ^ 1")]}
    found = audit(parts)
    assert found["test"] == {"methods": 13, "compared": 12, "exact": 1,
                             "near": {"0.7": 0.25, "0.8": 0.25, "0.9": 0.25}}
    assert found["validation"]["near"] == {"0.7": 0, "0.8": 0, "0.9": 0}


def test_what_does_not_parse_goes_and_a_dialect_is_told_from_damage():
    parts, _, funnel = corpus({"a/one": [
        method("a ^ [1]"), method("b ^ [1"), method("c ^ ##(1)", dialect="dolphin"),
        method("d ^ ##(1)")]})
    assert names(parts["train"]) == ["a ^ [1]"]
    assert funnel.reasons == {"does not parse": 2, "valid in Dolphin only": 1}
    assert syntax_objection(method("a ^ [1]"), parse) == ""


def test_the_funnel_counts_every_method_once_and_by_licence():
    files = {"a/one": [method("a ^ 1"), method("a ^ 1"), method("b ^ [1"), method(""),
                       Skipped("x.st", "broken")],
             "b/two": [MethodRecord("c ^ 'é'", "A", True, project="b/two", licence="BSD")]}
    _, _, funnel = corpus(files)
    assert [(step, funnel.total(step).methods) for step in funnel.steps] == [
        ("read", 5), ("clean", 4), ("not equal to another", 3), ("valid in Pharo", 2),
        ("not like another", 2), ("balanced", 2)]
    assert funnel.total("read").methods == funnel.total("balanced").methods \
        + sum(funnel.reasons.values())
    assert funnel.steps["balanced"]["BSD"].bytes == 8  # é is two
    assert [row["BSD"] for row in funnel.rows()] == ["0.00"] * 6
    assert funnel.facts["not_read"] == {"a/one": {"count": 1, "examples": ["x.st: broken"]}}
    assert funnel.examples["does not parse"] == ["a/one/Bank/Account>>b ^ [1: b ^ [1"]
    json.dumps(funnel.as_dict())


def test_a_source_that_was_not_collected_is_said():
    _, _, funnel = prepare([Checkout("a/one"), Checkout("b/gone", error="not there")],
                           lambda checkout: [method("a ^ 1")], parse, cap=1.0)
    assert funnel.facts["not_collected"] == {"b/gone": "not there"}


def test_a_repository_that_breaks_off_costs_its_rest_alone():
    def read(checkout):
        yield method("a ^ 1")
        if checkout.name == "b/broken":
            raise ValueError("git: object missing")

    parts, _, funnel = prepare([Checkout("b/broken"), Checkout("a/one")],
                               lambda checkout: (r for r in read(checkout)), parse)
    assert len(parts["train"]) == 1
    assert funnel.facts["not_read"] == {
        "b/broken": {"count": 1, "examples": ["the rest of it: git: object missing"]}}


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="no method is left of 1 sources.*does not parse"):
        corpus({"a/one": [method("b ^ [1")]})


def test_a_project_above_the_cap_loses_whole_classes():
    large = [method(invented(n), "a/large", f"Class{n % 40}") for n in range(400)]
    small = [method(invented(1000 + n), f"b/small{n % 10}") for n in range(200)]
    kept, cut = capped(large + small, 0.25)
    sizes = {p: sum(len(r.source) for r in kept if r.project == p) for p in ("a/large",)}
    assert cut == {"a/large"} and [r for r in kept if r.project != "a/large"] == small
    assert 0.2 < sizes["a/large"] / sum(len(r.source) for r in kept) <= 0.25
    left = {r.class_name for r in kept if r.project == "a/large"}
    assert sum(r.project == "a/large" for r in kept) == 10 * len(left)  # no class is cut in two
    assert capped(large + small, 0.9) == (large + small, set())
    with pytest.raises(ValueError, match="cap=0 must be a share"):
        capped(large, 0)


def test_classes_stay_in_the_order_of_their_hashes_until_the_room_is_full():
    large = [method("m ^ 1234567890", "a/large", f"Class{n}") for n in range(20)]
    small = [method("m ^ 1234567890", f"b/small{n}") for n in range(10)]
    kept, _ = capped(large + small, 0.25)
    left = {r.class_name for r in kept if r.project == "a/large"}
    by_hash = sorted((r.class_name for r in large), key=content_hash)
    assert left == set(by_hash[:3])  # a quarter of 13, as the other ten make three quarters


def test_one_project_alone_cannot_be_capped():
    records = [method(invented(n)) for n in range(5)]
    assert capped(records, 0.25) == (records, set())


def test_gini_by_hand():
    assert gini([3, 3, 3]) == pytest.approx(0)
    assert gini([0, 0, 0, 12]) == pytest.approx(0.75)
    assert gini([1, 3]) == pytest.approx(0.25)
    assert gini([]) == 0


def test_a_comment_that_a_held_out_class_has_is_not_trained_on():
    told = "I am a class whose comment is long enough to be told from another by chance."
    files = {"a/one": [method("a ^ 1"), ClassRecord("Copy", comment=told),
                       ClassRecord("Own", comment="I am short")],
             "b/two": [method("b ^ 1", "b/two"), ClassRecord("First", comment=told)]}
    _, classes, _ = corpus(files, {"b/two": "test"})
    assert [(split, record.name) for split, record in classes] == [("test", "First"),
                                                                   ("train", "Own")]


def test_a_corpus_is_saved_and_read_again_with_all_that_is_known(tmp_path):
    records = [MethodRecord("at: x\n\t^ 'é\u2028'", "Map", True, "accessing", "Maps", "a/one",
                            "MIT", "Maps/Map.class.st", "squeak")]
    classes = [("train", ClassRecord("Map", "Object", ("keys", "values"), comment="I map"))]
    save_corpus(tmp_path, {"train": records, "test": []}, classes, Funnel())
    funnel = json.loads((tmp_path / "funnel.json").read_text(encoding="utf-8"))
    assert funnel["files"]["train.jsonl"]["bytes"] == (tmp_path / "train.jsonl").stat().st_size
    assert funnel["files"]["test.jsonl"]["sha256"] == hashlib.sha256(b"").hexdigest()
    assert load_methods(tmp_path / "train.jsonl") == records
    assert load_methods(tmp_path / "test.jsonl") == []
    assert load_classes(tmp_path / "classes.jsonl") == [classes[0][1]]
    assert load_classes(tmp_path / "classes.jsonl", "test") == []
    (document,) = load_documents(tmp_path / "train.jsonl")
    assert document.text == records[0].source and document.project == "a/one"
    assert document.name == "a/one/Maps/Map class>>at: x"
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 is no method"):
        load_methods(tmp_path / "bad.jsonl")


def test_tokens_mask_literals_and_drop_comments():
    source = "at: x put: y\n\t\"a 'b'\" ^ a_b := -3.5e2 + $' , 'it''s' -> #at:put: ; z. {16r1F}"
    assert method_tokens(source) == ["at:", "x", "put:", "y", "^", "a_b", ":=", "?", "+", "?", ",",
                                     "?", "->", "?", ";", "z", ".", "{", "?", "}"]
    assert len(method_shingles(source)) == 15  # of 20 tokens
    assert len(method_shingles("foo ^ 1")) == 0


@given(st.text(alphabet="ab\"'$#:=[]0 \n", max_size=80))
def test_tokens_of_any_text_leave_only_comments_and_blanks_out(text):
    rest = "".join(method_tokens(text))
    assert len(rest) <= len("".join(text.split())) and not set(rest) & set(" \n")
    assert content_hash(text) == content_hash(f" {text}\n")


def random_sets(count: int, seed: int) -> list[np.ndarray]:
    """Sets in clusters, so that every similarity from 0 to 1 occurs."""
    draw, sets = np.random.default_rng(seed), []
    for _ in range(count // 5):
        base = draw.integers(0, 2**32, 60, dtype=np.uint32)
        for _ in range(5):
            changed = draw.random(60) < draw.random() * 0.4
            sets.append(np.unique(np.where(
                changed, draw.integers(0, 2**32, 60, dtype=np.uint32), base)))
    return sets


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 1.0])
def test_the_exact_search_equals_comparing_all_with_all(threshold):
    sets = random_sets(200, 1)
    held, training = sets[::3], [s for n, s in enumerate(sets) if n % 3]
    every = np.array([max(jaccard(h, t) for t in training) for h in held])
    assert np.array_equal(closest(held, training, threshold),
                          np.where(every >= threshold, every, 0))
    assert len(set(every.round(1))) > 5  # the sets are of all kinds


def test_the_exact_search_looks_at_as_many_rare_members_as_it_must():
    # one set within the other: all that the larger has alone is rarer than what they share
    larger, smaller = np.arange(10, dtype=np.uint32), np.arange(8, dtype=np.uint32)
    assert closest([larger], [smaller], 0.8).tolist() == [0.8]
    assert closest([smaller], [larger], 0.8).tolist() == [0.8]


def test_minhash_drops_what_comparing_all_with_all_drops():
    sets, kept, dropped = random_sets(600, 2), [], 0
    for number, found in enumerate(sets):
        if any(jaccard(found, sets[k]) >= 0.8 for k in kept):
            dropped += 1
        else:
            kept.append(number)
    found = similar_sets(sets, 0.8)
    assert all(jaccard(sets[a], sets[b]) >= 0.8 for a, b in found.items())
    assert 0.97 * dropped <= len(found) <= dropped and dropped > 40  # 99 in 100 at the threshold


def test_empty_sets_and_wrong_thresholds():
    empty = np.zeros(0, np.uint32)
    assert similar_sets([empty, empty]) == {} and similar_sets([]) == {}
    assert closest([empty], [empty]).tolist() == [0] and len(closest([], [empty])) == 0
    with pytest.raises(ValueError, match="threshold=0"):
        similar_sets([], 0)
