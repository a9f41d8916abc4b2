"""Figures, tables and verdicts of chapter 09: what they say of numbers that are known."""

import matplotlib
from test_smalltalk_judged import judgement

from scratchbook.companions import smalltalk_figures as figures
from scratchbook.companions import smalltalk_findings as told
from scratchbook.companions import smalltalk_judged as judged
from scratchbook.companions import smalltalk_tables as tables
from scratchbook.smalltalk.parser import parse_expression
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.teaching.figures import figure_svg

matplotlib.use("agg")


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


def test_figures_of_the_judgement_say_their_numbers():
    numbers = judgement()
    for figure, alt in (figures.plot_validity(numbers, judged.WRITERS),
                        figures.plot_completion(numbers["completion"]),
                        figures.plot_checkpoints(numbers["checkpoints"], judged.COURSE)):
        assert "<svg" in figure_svg(figure, alt) and any(c.isdigit() for c in alt)
    assert "longer" not in figures.plot_validity(numbers, ["model"])[1]  # nothing was counted


def test_summary_repeats_the_recorded_verdicts():
    numbers = {"steps": 9, "before": [0] * 40, "after": [1] * 40, "expressions": 9, "control": 3,
               "constrained": {"trained": [1, 1, 0]}}
    corpus = {"reasons": {"equal to a held-out method": 5, "resembles a held-out method": 2}}
    tokens = {"ratios": {"GPT-2": {"verdict": "met"}},
              "as_written": {"ratios": {"GPT-2": {"verdict": "not settled"}}}}
    text = " ".join(told.summary_lines(numbers, tokens, corpus, judgement()))
    assert "GPT-2 met (as written: not settled)" in text and "nine in ten: missed" in text
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
