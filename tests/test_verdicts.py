"""Sentences that numbers write: how often is a winner named where there is none?"""

import math

import pytest
import torch

from scratchbook.evaluation import Interval
from scratchbook.teaching import bound_verdict, comparisons, mean_and_spread, verdict
from scratchbook.teaching.conclusions import conclude, summary
from scratchbook.teaching.figures import table_html


def test_the_interval_of_three_by_hand():
    # differences 1, 2, 3: deviation 1, standard error 1 / sqrt(3), t with 2 degrees 4.303
    mean, half = mean_and_spread([1.0, 2.0, 3.0])
    assert mean == 2 and math.isclose(half, 4.303 / math.sqrt(3))


def test_one_value_has_no_spread_and_none_is_an_error():
    mean, half = mean_and_spread([5.0])
    assert mean == 5 and math.isnan(half)
    with pytest.raises(ValueError, match="nothing was measured"):
        mean_and_spread([])


def test_runs_are_compared_seed_by_seed():
    first, second = [1.0, 5.0, 9.0], [1.2, 5.2, 9.3]  # far apart by seed, close within one
    assert verdict(first, second) == "lower"
    assert verdict(second, first, low="better", high="worse") == "worse"
    assert verdict(first, second[::-1]) == "no clear difference"
    assert verdict(first, first) == "no clear difference"


@pytest.mark.parametrize(("first", "second"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2])])
def test_too_few_or_unpaired_runs_are_refused(first, second):
    with pytest.raises(ValueError, match="three or more"):
        verdict(first, second)


@pytest.mark.parametrize("runs", [3, 5, 10, 11])
def test_a_winner_among_equals_is_named_in_five_per_cent(runs):
    draws = torch.randn(4000, 2, runs, generator=torch.Generator().manual_seed(runs)).tolist()
    named = sum(verdict(a, b) != "no clear difference" for a, b in draws) / len(draws)
    # the standard error is 0.35 %: false alarms of this test once in 16,000
    assert abs(named - 0.05) < 0.014


BAD = (1e9, math.inf, math.nan)


@pytest.mark.parametrize("bad", BAD)
def test_runs_that_blew_up_are_counted_and_not_averaged(bad):
    sound = [2.0, 2.1, 2.2]
    assert verdict([bad] * 3, sound) == "blew up in 3 of 3"
    assert verdict([2.0, bad, 2.2], sound) == "blew up in 1 of 3"
    assert verdict(sound, [2.0, bad, 2.2]) == "the other blew up in 1 of 3"
    assert verdict([bad] * 3, [bad, 2.0, bad]) == "blew up in 3 of 3, the other in 2 of 3"
    assert bound_verdict([2.0, bad, 2.2], at_most=3) == "blew up in 1 of 3"


def test_a_chapter_may_say_from_where_on_a_loss_has_blown_up():
    assert verdict([9.0, 2.0, 2.0], [2.0, 2.0, 2.1], limit=5.0) == "blew up in 1 of 3"


@pytest.mark.parametrize(("values", "said"), [
    ([1.4, 1.41, 1.39], "met"), ([1.2, 1.21, 1.19], "missed"), ([1.28, 1.31, 1.36], "not settled"),
    ([1.4, 1.5], "not tested"), (Interval(1.4, 1.3, 1.5), "met"),
    (Interval(1.4, 1.29, 1.5), "not settled")])
def test_a_bound_inside_the_interval_is_not_settled(values, said):
    assert bound_verdict(values, at_least=1.3) == said


def test_a_range_is_met_by_an_interval_that_lies_inside():
    assert bound_verdict([0.9, 0.92, 0.94], 0.8, 1.0) == "met"
    assert bound_verdict([0.99, 1.0, 1.01], 0.8, 1.0) == "not settled"
    assert bound_verdict([1.2, 1.21, 1.22], 0.8, 1.0) == "missed"


def test_row_and_sentence_say_the_same():
    runs = {"a": [1.0, 5.0, 9.0], "b": [1.2, 5.2, 9.3], "c": [1e9, 5.0, 9.0]}
    lower, lost = comparisons(runs, [("a", "b"), ("c", "b")], unit="bits")
    assert lower.row() == {"compared": "a against b", "difference, bits": "-0.23\u00a0±\u00a00.14",
                           "verdict": "lower"}
    assert str(lower) == "a against b: lower (-0.23\u00a0±\u00a00.14 bits)"
    assert str(lost) == "c against b: blew up in 1 of 3" and lost.row()["difference, bits"] == ""
    assert "lower" in table_html([lower.row(), lost.row()])
    assert [c.name for c in comparisons(runs, against="b")] == ["a", "c"]
    with pytest.raises(ValueError, match="three or more"):
        comparisons({"a": [1.0], "b": [2.0]}, against="b")


def findings(numbers):
    return [f"one {numbers['by_rate']['1']}"]


def test_a_chapter_concludes_with_this_run_and_the_recorded_one(tmp_path, monkeypatch, shown):
    monkeypatch.setattr("scratchbook.teaching.results.results_dir", lambda: tmp_path)
    conclude("toy", {"by_rate": {1: 2}}, findings, seeds=[0], full=False, last=["Use `it`."])
    assert "<li>one 2</li><li>no result called" in shown[-1]
    assert shown[-1].endswith("<li>Use <code>it</code>.</li></ul></div></div>")
    conclude("toy", {"by_rate": {1: 3}}, findings, seeds=[0], full=True)
    assert "<li>one 3</li><li>Full run: one 3</li><li>The full run was recorded" in shown[-1]


def test_a_recorded_run_that_lacks_a_number_says_how_to_renew_it(tmp_path, monkeypatch, shown):
    monkeypatch.setattr("scratchbook.teaching.results.results_dir", lambda: tmp_path)
    conclude("toy", {"by_rate": {1: 2}}, findings, seeds=[0], full=True)
    conclude("toy", {"new": 1}, lambda numbers: [f"{numbers['new']}"], seeds=[0], full=False)
    assert "has no 'new'; <code>scratchbook run toy --profile full</code> renews it" in shown[-1]


def test_a_summary_is_a_list(shown):
    summary("first", "second")
    assert shown[-1] == "* first\n* second"
