"""The figures of chapter 00 say in words what their data shows, whatever the data is."""

from __future__ import annotations

import re

import pytest
import torch

from scratchbook.companions import start_figures


def alt(html: str) -> str:
    return re.search('aria-label="([^"]*)"', html)[1]


def test_order_curves_names_the_best_order_of_each_curve(shown, capsys):
    start_figures.order_curves([1, 2, 3], {"a": [3.0, 2.0, 2.5], "b": [3.0, 1.5, 1.0]})
    assert "a: best 2.00 bits per byte, at order 2; 2.50 at order 3" in alt(shown[0])
    assert "b: best 1.00 bits per byte, at order 3" in capsys.readouterr().out


def test_pair_map_finds_the_surest_row(shown):
    probs = torch.full((3, 3), 0.3)
    probs[1] = torch.tensor([0.05, 0.05, 0.9])
    start_figures.pair_map(probs, ["q", "\n", "u"], [0, 1, 2])
    assert "surest row: &#x27;\\n&#x27;, followed by &#x27;u&#x27; with probability 0.90" in alt(
        shown[0])


def test_reach_map_reads_the_last_position(shown):
    weights = torch.eye(4).repeat(2, 1, 1)
    weights[1, -1, -1] = 0.25
    start_figures.reach_map(weights)
    assert "gives itself 1.00, 0.25 in heads 0 to 1" in alt(shown[0])


def test_forecast_errors_have_their_sign(shown):
    errors = start_figures.forecast_bars({"low": 5.0, "high": 12.0}, measured=10.0)
    assert errors == pytest.approx({"low": -50.0, "high": 20.0})
    assert "low 5.0 s (-50 %)" in alt(shown[0])


def test_learning_curve_says_when_and_whether(shown, capsys):
    curve = [(1000, 3.0), (2000, 2.4), (3000, 2.1)]
    start_figures.learning_curve(curve, {"bigram": 2.5, "table": 2.0})
    printed = capsys.readouterr().out
    assert "passes the bigram (2.50) after 2,000 letters" in printed
    assert "does not pass the table (2.00)" in printed


def test_price_bars_tell_beginnings_of_words_apart(shown, capsys):
    text = "ab cd " * 40
    begins = torch.tensor([letter == " " for letter in text[:-1]])
    first = torch.full((len(text) - 1,), 3.0)
    second = torch.where(begins, 2.5, 1.0)
    start_figures.price_bars(text, {"x": first, "y": second})
    assert "0.50 bits where a word begins, 2.00 elsewhere" in capsys.readouterr().out


def test_verdicts_have_three_outcomes(capsys):
    rivals = [{"player": name, "bits per byte": bits}
              for name, bits in (("a", 2.0), ("b", 1.5), ("c", 1.505))]
    start_figures.verdicts([{"player": "ours", "bits per byte": 1.51}], rivals[:2], noise=0.02)
    assert "ours: beats a by 0.49; no clear difference from b" in capsys.readouterr().out
    start_figures.verdicts([{"player": "ours", "bits per byte": 1.7}], rivals[1:], noise=0.01)
    assert "ours: loses to b by 0.20; loses to c by 0.20" in capsys.readouterr().out


def test_insights_are_a_titled_box(shown):
    start_figures.insights("one", "two")
    assert "Insights" in shown[0]
    assert shown[0].count("<li>") == 2
