"""What chapter 01's figures say is worked out from the numbers, doubt included."""

from __future__ import annotations

import pytest

from scratchbook.companions import token_figures, token_sweep
from scratchbook.companions.token_figures import dearest, price
from scratchbook.companions.token_sweep import Sweep


def run(size: int, bits: float, seed: int, budget: float = 1e9) -> dict:
    return {"vocab_size": size, "bits_per_byte": bits, "seed": seed, "budget": budget,
            "bytes_per_token": 1.0, "embedding_share": 0.5, "seconds_per_MB": 1.0}


def test_a_winner_needs_three_seeds_that_agree():
    clear = Sweep([run(s, b + 0.01 * k, k) for s, b in ((256, 2.0), (512, 1.5)) for k in range(3)])
    assert clear.verdicts == ["at 1 GFLOP: 512 tokens, 1.510 bits per byte"]
    close = Sweep([run(256, b, k) for k, b in enumerate((1.51, 1.52, 1.50))]
                  + [run(512, b, k) for k, b in enumerate((1.50, 1.50, 1.52))])
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


def near_run(size: int, bits: float, seed: int, context: int = 3) -> dict:
    return run(size, bits, seed) | {"context": context}


def test_windows_are_compared_size_by_size_and_the_order_is_judged_anew(shown, capsys):
    far = Sweep([run(s, b + 0.01 * k, k) for s, b in ((256, 3.0), (512, 2.5)) for k in range(3)])
    near = [near_run(512, 2.4 + 0.011 * k, k) for k in range(3)]
    token_sweep.windows_table(far, [], {"runs": near})
    assert "the shorter window is better" in shown[0]
    assert "2.411 (3 tokens)" in shown[0]
    assert "8 bytes for all, 1 GFLOP: 512 against 256 tokens: better" in capsys.readouterr().out
    turned = Sweep([near_run(512, 3.4 + 0.011 * k, k) for k in range(3)])
    assert "512 against 256 tokens: worse" in token_sweep.order_lines(far, turned)[0]
    one = Sweep([near_run(512, 1.9, 0)])
    assert "512 against 256 tokens: one seed" in token_sweep.order_lines(far, one)[0]


def test_insights_say_what_the_sweep_says():
    runs = [run(s, b + 0.01 * k, k) for s, b in ((256, 2.0), (512, 1.5)) for k in range(3)]
    said = " ".join(token_sweep.findings({"runs": runs}))
    assert Sweep(runs).verdicts[0] in said
    assert "its embedding table is 50 % of the model" in said


def test_faster_needs_ranges_that_do_not_overlap():
    def row(who, seconds, fastest, slowest, megabytes=1.0, **how):
        return {"task": "train, GPT-2's", "who": who, "seconds": seconds, "fastest": fastest,
                "slowest": slowest, "megabytes": megabytes, "runs": 5, "extrapolated": False} | how

    ours = row("ours", 0.2155, 0.1999, 0.315)
    lines = token_figures._race_lines([
        ours, row("tokenizers", 0.3099, 0.3061, 0.3223), row("naive", 2.155, 2.0, 2.2, 0.1),
        row("naive, once", 2.155, 2.155, 2.155, 0.1, runs=1),
        row("naive, a part", 2.155, 2.155, 2.155, runs=1, extrapolated=True),
        row("tiktoken", 0.1, 0.09, 0.11), row("ours, again", 0.1, 0.1, 0.1)])
    assert lines == [
        "train: the package is not clearly faster or slower than tokenizers (ranges overlap)",
        "train: the package is 100 times as fast as naive",    # it read a tenth of the text
        "train: the package is 100 times as fast as naive, once (one run, on 0.10 MB)",
        "train: the package is 10.0 times as fast as naive, a part (extrapolated)",
        "train: the package is 2.2 times slower than tiktoken"]


def test_languages_count_bytes_per_token_and_pieces_per_word(shown):
    token_figures.languages({"X": ["ab cd", "éf"]}, encode=list,
                            splitters={"each letter": list, "words": str.split})
    assert "1.14" in shown[0]          # eight bytes, seven tokens
    assert "2.33" in shown[0]          # seven pieces, three words
    assert "1.00" in shown[0]
