"""The recorded judgement as chapter 09 shows it: what tables and lines say of known numbers."""

import pytest

from scratchbook.companions import smalltalk_judged as judged
from scratchbook.evaluation import wilson

GAP = {"value": 0.1, "low": 0.05, "high": 0.15, "verdict": "ahead"}
NONE = {"value": None, "low": None, "high": None}
KINDS = ("exact", "tree", "selector")


def share(passed, total, **more):
    return wilson(passed, total)._asdict() | more


def writer(passed, total=100):
    valid = share(passed, total)
    return {"tokens": {"p50": 30}, "measures": dict.fromkeys(judged.MEASURES, valid), "validity": {
        "methods": total, "unfinished": 7, **dict.fromkeys(judged.JUDGES, valid),
        "at_training_lengths": {"all judges": valid},
        "by_quarter": {"all judges": [valid, valid, valid, NONE]}}}


def judgement():
    """A record with every entry that the page shows."""
    less = [GAP, None, GAP | {"verdict": "higher"}, GAP]
    copied = {"methods": 100, "word_for_word": share(3, 100), "run": share(1, 2),
              "share": share(1, 2), "longest": {"run": 41, "text": "nil " * 30},
              "less_people": less}
    own = {"classes": 9, "methods": 30, "above_shuffled": {"fields used": GAP},
           "measures": {name: share(8, 10) for name in judged.CLASSES},
           "shuffled": {name: share(5, 10) for name in judged.CLASSES},
           "alone": {"classes": 8, "methods": 20,
                     "above": dict.fromkeys(judged.CLASSES) | {"fields used": GAP}}}
    bits = {"model": share(1, 2), "Kneser-Ney": share(2, 3)}
    rank = {"value": -0.9, "low": -1.0, "high": -0.5, "p": 0.01, "late": None,
            "changes": {"value": -0.2, "low": -0.6, "high": 0.3}}
    split = {"random split": share(5, 10), "unseen projects": share(8, 10)}
    right = {"model": dict.fromkeys(KINDS, 0.3), "Kneser-Ney": dict.fromkeys(KINDS, 0.2)}
    return {
        "definitions": dict.fromkeys([*judged.MEASURES, *judged.CLASSES], "what is counted"),
        "model": {"step": 500, "window": 256, "parameters": 7}, "aim": {"model": "missed"},
        "training": {"quartiles": [10, 20, 40]},
        "samples": {name: writer(70 + place) for place, name in enumerate(judged.MEASURED)},
        "differences": {"people": {"known selectors": GAP, "methods": 160},
                        "Kneser-Ney": {"methods": 40},
                        "a training method, whole": {"methods": 90}},
        "classes": {"model": own}, "copied": {"model, temperature 0.7": copied},
        "completion": {"cases": 100, "differences": {"Kneser-Ney": dict.fromkeys(KINDS, GAP)},
                       "by_project": {"a": {"cases": 60, "shares": right}, "b": {
                           "cases": 40, "shares": right | {"model": dict.fromkeys(KINDS, 0.1)}}},
                       "rivals": {name: {kind: share(20, 100) for kind in KINDS}
                                  for name in ("model", "Kneser-Ney")}},
        "surprise": {"bits_per_character": bits, "differences": {"Kneser-Ney": GAP},
                     "by_project": {"model": {"a": 1.0, "b": 1.0},
                                    "Kneser-Ney": {"a": 2.0, "b": 0.4}}},
        "random_split": {"bits_per_character": split, "unseen_less_random": {"verdict": "harder"}},
        "checkpoints": {"steps": [1, 2], "correlation": (
            dict.fromkeys((*judged.COURSE, *judged.MEASURES)) | {
                "valid": rank, "returns": rank | {"high": 0.1, "changes": None},
                "trivial": rank | {"value": 0.8, "low": 0.5, "high": 1.0, "changes": rank},
                "unshown": rank}),
                        "values": {name: [0.5, None] for name in judged.COURSE} | {
                            "loss": [2.0, 1.0]}}}


@pytest.mark.parametrize("rows", [
    judged.measure_rows, judged.definition_rows, judged.class_rows, judged.completion_rows,
    judged.correlation_rows, judged.copied_rows])
def test_tables_have_equal_keys(rows):
    found = rows(judgement())
    assert found and all(list(row) == list(found[0]) for row in found)


def test_a_measure_that_was_not_compared_has_no_verdict():
    rows = {row["measure"]: row for row in judged.measure_rows(judgement())}
    assert rows["known selectors"]["model against people"] == "ahead"
    assert rows["reachable"]["model against people"] == "not tested"
    line = judged.lengths_line(judgement())
    assert "160 with people, 40 with Kneser-Ney, 90 with a training" in line
    assert "24 verdicts" in line


def test_correlations_are_shown_of_what_moves_and_the_rest_is_named():
    row = judged.correlation_rows(judgement())[0]
    assert (row["measure"], row["with the loss"]) == ("valid", "-0.90 (-1.00 to -0.50)")
    said = judged.still_line(judgement())
    assert "reachable" in said and "valid" not in said and "unshown" not in said
    line = judged.correlation_line(judgement())
    assert "these rise: valid; these fall: trivial; these do neither clearly: returns" in line
    assert "next 1 of 2 go with it" in line


def test_methods_that_never_ended_are_counted_beside_the_valid_ones(monkeypatch):
    shown, numbers = [], judgement()
    monkeypatch.setattr(judged, "table", lambda rows, *_: shown.extend(rows))
    numbers["samples"]["model"]["given_up"] = 3
    judged.show_validity(numbers)
    assert [row["never ended"] for row in shown] == [
        "7 of 100", "7 of 100, 3 of them given up after refused tokens", *["7 of 100"] * 3]
    assert [row["aim: 90 %"] for row in shown] == ["", "missed", "", "", ""]


def test_projects_are_counted_where_somebody_is_ahead():
    rows = {row["measure"]: row for row in judged.completion_rows(judgement())}
    assert rows["exact"]["projects where ahead"] == "1 of 2"
    assert "fewer bits in 1 of 2 projects" in judged.other_lines(judgement())[1]
    line = judged.split_line(judgement())
    assert "against a split by chance: harder; above it in 1 of 2 projects" in line


def test_what_was_not_compared_is_said():
    assert "fields used ahead; names declared not tested" in judged.alone_line(judgement())
    assert "20 methods of 8 classes" in judged.alone_line(judgement())
    line = judged.copied_line(judgement(), "model, temperature 0.7")
    assert "second none to compare; third +10 points (+5 to +15), higher" in line
    row, = judged.copied_rows(judgement())
    assert row["longest of all, tokens"] == "41: nil nil nil nil nil nil…"


def test_completion_is_told_with_its_level():
    exact, selector = judged.completion_lines(judgement()["completion"])
    assert exact.startswith("Completion, the same tokens: model 20.0 %, Kneser-Ney 20.0 %; ")
    assert "Kneser-Ney: ahead." in exact and "the last selector" in selector
