"""Figures, tables and verdicts of chapter 09: what they say of numbers that are known."""

import matplotlib
import pytest

from scratchbook.companions import smalltalk_figures as figures
from scratchbook.companions import smalltalk_findings as told
from scratchbook.companions import smalltalk_tables as tables
from scratchbook.evaluation import wilson
from scratchbook.smalltalk.parser import parse_expression
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.teaching.figures import figure_svg

matplotlib.use("agg")


def share(passed, total, **more):
    return wilson(passed, total)._asdict() | more


def writer(passed, total=100):
    valid = share(passed, total)
    return {"tokens": {"p50": 30}, "measures": dict.fromkeys(told.MEASURES, valid), "validity": {
        "methods": total, "unfinished": 7, **dict.fromkeys(told.JUDGES, valid),
        "at_training_lengths": {"all judges": valid},
        "by_quarter": {"all judges": [valid, valid, valid,
                                      {"value": None, "low": None, "high": None}]}}}


def judgement():
    gap = {"value": 0.1, "low": 0.05, "high": 0.15, "verdict": "ahead"}
    copied = {"methods": 100, "word_for_word": share(3, 100), "run": share(1, 2),
              "share": share(1, 2), "longest": {"run": 41}}
    own = {"measures": {name: share(8, 10) for name in told.CLASSES},
           "shuffled": {name: share(5, 10) for name in told.CLASSES},
           "above_shuffled": {"fields used": gap}}
    bits = {"model": share(1, 2), "Kneser-Ney": share(2, 3)}
    rank = {"value": -0.9, "low": -1.0, "high": -0.5, "p": 0.01, "late": None,
            "changes": {"value": -0.2, "low": -0.6, "high": 0.3}}
    return {
        "definitions": dict.fromkeys([*told.MEASURES, *told.CLASSES], "what is counted"),
        "model": {"step": 500, "window": 256, "parameters": 7}, "aim": {"model": "missed"},
        "training": {"quartiles": [10, 20, 40]},
        "samples": {name: writer(70 + place) for place, name in enumerate(told.WRITERS)},
        "differences": {"people": {"known selectors": gap}, "Kneser-Ney": {}},
        "classes": {"model": own}, "copied": {"model": copied},
        "completion": {"cases": 100, "differences": {"Kneser-Ney": {"exact": gap}}, "rivals": {
            name: {kind: share(20, 100) for kind in ("exact", "tree", "selector")}
            for name in ("model", "Kneser-Ney")}},
        "surprise": {"bits_per_character": bits,
                     "differences": {"Kneser-Ney": {"verdict": "lower"}}},
        "random_split": {"bits_per_character": bits, "unseen_less_random": {"verdict": "harder"}},
        "checkpoints": {"steps": [1, 2], "correlation": (
            dict.fromkeys((*told.COURSE, *told.MEASURES)) | {"valid": rank, "unshown": rank}),
                        "values": {name: [0.5, None] for name in told.COURSE} | {
                            "loss": [2.0, 1.0]}}}


def test_a_tree_is_told_with_all_its_brackets():
    tree = (("3", "+", "4"), "max:", ("a", "size"))
    assert figures.told(tree) == "((3 + 4) max: (a size))"
    figure, alt = figures.plot_tree(tree)
    assert "((3 + 4) max: (a size))" in alt and "<svg" in figure_svg(figure, alt)
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert drawn == {"3", "4", "a", "+", "size", "max:"}


def test_simple_sends_are_the_largest_of_messages_names_and_literals():
    method = MethodRecord("x ^ (self foo: 3) bar: [ a b + #c ] to: $d", "A", False)
    assert [text for text, _ in tables.simple_sends([method])] == ["self foo: 3", "a b + #c"]


def test_simple_sends_come_with_their_own_trees():
    method = MethodRecord("x ^ (a at: 1) , (b at: 2)", "A", False)
    (text, tree), = tables.simple_sends([method])
    assert parse_expression(text) == (tree,)


def test_the_funnel_adds_up():
    rows = tables.funnel_rows({"steps": [
        {"step": "read", "licence": "MIT", "methods": 3, "bytes": 3_000_000},
        {"step": "read", "licence": "Apache", "methods": 1, "bytes": 1_000_000},
        {"step": "clean", "licence": "MIT", "methods": 2, "bytes": 1_000_000}]})
    assert [row["methods"] for row in rows] == ["4", "2"]
    assert [row["MB left"] for row in rows] == ["", "25%"]
    assert rows[1]["MB, Apache"] == "0.0"


def test_parsers_are_counted_by_edit():
    def entry(edit, ours, other, amber, methods):
        return {"edit": edit, "ours": ours, "tree-sitter": other, "amber": amber,
                "methods": methods}

    row, = tables.parser_rows({"counts": [
        entry("as it is", True, True, False, 5), entry("as it is", True, False, True, 2),
        entry("as it is", False, True, True, 1)]})
    assert (row["methods"], row["accepted by ours"], row["by all three"]) == (8, 7, 0)
    assert row["ours and tree-sitter differ"] == 3


@pytest.mark.parametrize("rows", [
    told.measure_rows, told.definition_rows, told.class_rows, told.completion_rows,
    told.correlation_rows, told.copied_rows])
def test_tables_of_the_judgement_have_equal_keys(rows):
    found = rows(judgement())
    assert found and all(list(row) == list(found[0]) for row in found)


def test_a_measure_that_was_not_compared_has_no_verdict():
    rows = {row["measure"]: row for row in told.measure_rows(judgement())}
    assert rows["known selectors"]["model against people"] == "ahead"
    assert rows["reachable"]["model against people"] == "not tested"


def test_correlations_are_shown_of_what_moves_and_the_rest_is_named():
    row, = told.correlation_rows(judgement())
    assert (row["measure"], row["with the loss"]) == ("valid", "-0.90 (-1.00 to -0.50)")
    said = told.still_line(judgement())
    assert "trivial" in said and "valid" not in said and "unshown" not in said


def test_methods_that_never_ended_are_counted_beside_the_valid_ones(monkeypatch):
    shown = []
    monkeypatch.setattr(told, "table", lambda rows, *_: shown.extend(rows))
    told.show_validity(judgement())
    assert [row["never ended"] for row in shown] == ["7 of 100"] * len(told.WRITERS)


def test_figures_of_the_judgement_say_their_numbers():
    numbers = judgement()
    for figure, alt in (figures.plot_validity(numbers, told.WRITERS),
                        figures.plot_completion(numbers["completion"]),
                        figures.plot_checkpoints(numbers["checkpoints"], told.COURSE)):
        assert "<svg" in figure_svg(figure, alt) and any(c.isdigit() for c in alt)
    assert "longer" not in figures.plot_validity(numbers, ["model"])[1]  # nothing was counted


def test_summary_repeats_the_recorded_verdicts():
    numbers = {"steps": 9, "before": [0] * 40, "after": [1] * 40, "expressions": 9, "control": 3,
               "constrained": {"trained": [1, 1, 0]}}
    corpus = {"reasons": {"equal to a held-out method": 5, "resembles a held-out method": 2}}
    tokens = {"ratios": {"GPT-2": {"verdict": "not settled"}}}
    text = " ".join(told.summary_lines(numbers, tokens, corpus, judgement()))
    assert "GPT-2 not settled" in text and "nine in ten: missed" in text
    assert "Kneser-Ney: ahead" in text
    text = " ".join(told.summary_lines(numbers, tokens, corpus, None))
    assert "more valid methods" in text and tables.MISSING in text
    assert "no clear difference" in told.tiny_line(numbers | {"after": [0] * 39 + [1]})
    assert told.findings(numbers)[0] == told.tiny_line(numbers)


def test_observations_follow_from_the_numbers():
    rows = {"ours": {"a/x": 3.0, "b/y": 4.0}, "GPT-2": {"a/x": 2.0, "b/y": 2.5}}
    assert "for every tokenizer: a/x" in told.hardest_project({"chars_per_token": rows})
    rows["GPT-2"]["b/y"] = 1.0
    assert "depends on the tokenizer" in told.hardest_project({"chars_per_token": rows})
    assert "5 of 7" in told.largest_drop({"reasons": {"empty": 2, "equal": 5}})
    line = told.by_length(["x", "y ^ 1", "z ^ (((((", "w ^ ]]]]]]"])
    assert "shorter half 100 %" in line and "longer half 0 %" in line


def test_how_meaningful_a_split_is():
    assert "against a split by chance: harder" in told.split_line(judgement())
