"""The figures of chapter 00 say in words what their data shows, whatever the data is."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest
import torch

from scratchbook.companions import start_figures

COUNTED = {"bigram": 3.58, "best": 1.657, "bzip2": 1.7012, "level": 1.673}
THREE = [1.6737, 1.6716, 1.6748]

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


def test_forecast_errors_have_their_sign(capsys):
    errors = start_figures.forecast_errors({"low": 5.0, "high": 12.0}, measured=10.0)
    assert errors == pytest.approx({"low": -50.0, "high": 20.0})
    assert "low 5.0 s (-50 %)" in capsys.readouterr().out


def test_new_runs_are_counted_as_often_as_they_are_met(capsys):
    start_figures.new_runs(Counter({"ab": 5}), Counter({"ab": 1, "ba": 3}))
    assert "75% of the unseen text's runs of 2 are new" in capsys.readouterr().out


def test_samples_say_how_many_words_are_known(capsys):
    start_figures.samples({"x": "a b c\n   d"}, known={"a", "b", "d"})
    assert capsys.readouterr().out == "[x, 75% known] a b c d\n"


def test_letter_prices_are_those_of_the_scoring_loop():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 8), torch.nn.Linear(8, 5))
    ids = torch.randint(5, (70,))
    found = start_figures.letter_prices(model, ids, window=16)
    nats = torch.nn.functional.cross_entropy(model(ids[:-1]), ids[1:], reduction="none")
    torch.testing.assert_close(found, nats / math.log(2))


def test_the_scoreboard_holds_every_player_and_no_verdict_of_one_run(shown):
    full = {"bits": THREE, "parameters": 10, "letters_read": 2_000_000}
    start_figures.scoreboard(COUNTED, 2.1, full)
    assert len(shown) == 2
    assert all(f"against {name}" in shown[1] for name in COUNTED)
    start_figures.scoreboard(COUNTED, 2.1, full | {"bits": [1.6]})
    assert len(shown) == 3


def test_learning_curve_says_when_and_whether(shown, capsys):
    curve = [(1000, 3.0), (2000, 2.4), (3000, 2.1)]
    start_figures.learning_curve(curve, {"bigram": 2.5, "table": 2.0})
    printed = capsys.readouterr().out
    assert "passes the bigram (2.50) after 2,000 letters" in printed
    assert "does not pass the table (2.00)" in printed


def test_price_bars_tell_beginnings_of_words_apart(shown, capsys):
    text = "ab cd " * 40
    begins = torch.tensor([a == " " for a in text[:-1]])
    first = torch.full((len(text) - 1,), 3.0)
    second = torch.where(begins, 2.5, 1.0)
    start_figures.price_bars(text, {"x": first, "m": first, "y": second}, start=96)
    printed = capsys.readouterr().out
    assert "x: 3.00 bits where a word begins, 3.00 inside of words" in printed
    assert "y: 2.50 bits where a word begins, 1.00 inside of words" in printed


def test_the_transformer_is_better_worse_or_neither(capsys):
    words = {one.other: one.word for one in start_figures.against_counting(THREE, COUNTED)}
    assert words == {"bigram": "better", "best": "worse", "bzip2": "better",
                     "level": "no clear difference"}


def test_insights_and_summary_say_what_the_table_says():
    numbers = {"bits": THREE, "parameters": 160640, "letters_read": 10_240_000}
    for line in (start_figures.findings(numbers, COUNTED)[0],
                 start_figures.summary_line(numbers, COUNTED)):
        assert "better: bigram, bzip2; worse: best; no clear difference: level" in line
    one = numbers | {"bits": [1.2]}
    for line in (start_figures.findings(one, COUNTED)[0],
                 start_figures.summary_line(one, COUNTED)):
        assert "names no winner" in line
        assert "better" not in line


def test_kneser_ney_by_hand():
    # order 1 holds a: 2, n: 1, discount 1 / (1 + 2) = 1/3; order 2 holds an: 2, na: 2, ba: 1,
    # discount 1 / (1 + 4) = 1/5; the alphabet has 4 letters
    p_a = ((2 - 1 / 3) + (1 / 3) * 2 / 4) / 3       # a after nothing
    p_na = ((2 - 1 / 5) + (1 / 5) * 1 * p_a) / 2    # a after n
    bits = start_figures.kneser_ney_bits("banana", "na", 2, vocab_size=4)
    assert bits == pytest.approx(-math.log2(p_na) / 1)


def test_kneser_ney_bets_one_in_all():
    text, letters = "abracadabra" * 3 + "bacd", "abrcd"
    for start in ("ab", "dd"):
        total = sum(2 ** -start_figures.kneser_ney_bits(text, start + a, 3, len(letters))
                    for a in letters)
        assert total == pytest.approx(1.0)


def test_the_codes_hash_ignores_comments_and_line_breaks():
    one = start_figures.code_hash(["def f(a, b):", "    return a + b  # their sum"])
    assert one == start_figures.code_hash(["def f(a,", "      b):", "    return a + b"])
    assert one != start_figures.code_hash(["def f(a, b):", "    return a - b"])
