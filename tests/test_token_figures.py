"""What chapter 01's figures say is worked out from the numbers, doubt included."""

from __future__ import annotations

import pytest

from scratchbook.companions import token_figures
from scratchbook.companions.token_figures import Sweep, dearest, price


def run(size: int, bits: float, seed: int, budget: float = 1e9) -> dict:
    return {"vocab_size": size, "bits_per_byte": bits, "seed": seed, "budget": budget,
            "bytes_per_token": 1.0, "embedding_share": 0.5, "seconds_per_MB": 1.0}


def test_a_winner_needs_three_seeds_that_agree():
    clear = Sweep([run(s, b + 0.01 * k, k) for s, b in ((256, 2.0), (512, 1.5)) for k in range(3)])
    assert clear.verdicts == ["at 1 GFLOP: 512 tokens, 1.510 bits per byte"]
    close = Sweep([run(s, b + 0.01 * k, k) for s, b in ((256, 1.51), (512, 1.5)) for k in range(3)])
    assert "no clear difference" in close.verdict(1e9)
    single = Sweep([run(256, 2.0, 0), run(512, 1.5, 0)])
    assert single.verdicts == ["at 1 GFLOP: one seed names no winner"]


def test_each_budget_has_its_own_verdict():
    runs = [run(s, b, k, budget) for k in range(3) for s, b, budget in
            ((256, 2.0, 1e9), (512, 1.5, 1e9), (256, 1.0, 2e9), (512, 1.2, 2e9))]
    sweep = Sweep(runs)
    assert "512 tokens" in sweep.verdict(1e9)
    assert "256 tokens" in sweep.verdict(2e9)
    assert sweep.values("bits_per_byte", 256) == [1.0] * 3  # the larger budget
    assert sweep.gains == ["2 times the compute saves 1.00 bits per byte at 256 tokens, "
                           "0.30 at 512"]


def test_the_price_of_a_language():
    ratio, low, high = price([20, 40, 60], [10, 20, 30])
    assert (ratio, low, high) == pytest.approx((2, 2, 2))  # every sentence costs twice as much
    ratio, low, high = price([10, 90], [10, 30])
    assert ratio == pytest.approx(2.5)
    assert (low, high) == pytest.approx((1, 3))  # resamples hold one sentence only


def test_the_dearest_language_must_stand_alone():
    english = [1.0, 1.0, 1.0]
    apart = {"English": english, "Hindi": [6.0, 5.5, 6.5], "Greek": [3.0, 2.8, 3.2]}
    near = {"English": english, "Hindi": [3.1, 2.5, 3.5], "Greek": [3.0, 2.8, 3.2]}
    assert dearest({"bytes": apart}) == ["bytes: Hindi, 6.0 times English"]
    assert "no clear difference" in dearest({"bytes": near})[0]


def test_shares_touched_counts_words_that_became_shorter():
    def merge(word, pair):
        return ("ab", *word[2:]) if word[:2] == pair else word

    words = {("a", "b"): 5, ("c",): 1}
    shares = token_figures.shares_touched(words, [("a", "b"), ("x", "y")], merge)
    assert shares == [0.5, 0.0]


def test_a_missing_result_says_how_to_make_it(capsys):
    assert token_figures.recorded("never_recorded", "scratchbook run 01") is None
    assert "scratchbook run 01" in capsys.readouterr().out
