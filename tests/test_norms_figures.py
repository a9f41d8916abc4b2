"""The figures of chapters 03 and 04 say in words what their data shows, whatever the data is."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from scratchbook.companions import norms_figures, positions_figures

TRIALS = {"a": {0.1: [3.0, 2.0, 1e9], 0.5: [2.0, 9.0, 1e9]}, "b": {0.1: [1.0], 0.5: [math.nan]}}


def test_a_blow_up_is_counted_at_the_largest_rate_and_nan_is_one():
    assert norms_figures.blown(TRIALS["a"], blind=3.0) == (2, 3)
    assert norms_figures.blown(TRIALS["b"], blind=3.0) == (1, 1)


def test_rows_give_the_median_of_the_survivors():
    row, other = norms_figures.trial_rows(TRIALS, blind=3.0)
    assert row["loss at lr 0.1"] == "2.50" and row["blew up at the largest"].startswith("2 of 3 (")
    assert other["loss at lr 0.5"] == "none left"


@pytest.mark.parametrize(("hits", "runs", "low", "high"), [
    (0, 3, 0.0, 0.5615), (3, 3, 0.4385, 1.0), (5, 10, 0.2366, 0.7634)])
def test_wilson_intervals_by_the_published_formula(hits, runs, low, high):
    assert norms_figures.wilson(hits, runs) == pytest.approx((low, high), abs=1e-3)


def test_wilson_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="4 of 3"):
        norms_figures.wilson(4, 3)


def test_trials_and_chains_are_told():
    figure, alt = norms_figures.plot_trials(TRIALS, blind=3.0)
    assert "a 2 of 3, b 1 of 1" in alt
    plt.close(figure)
    figure, alt = norms_figures.plot_chains({"x": [1.0, 20.0]})
    assert alt.endswith("x: from 1 to 20.")
    plt.close(figure)


@pytest.mark.parametrize(("placement", "sizes"), [
    ("no residual", [1, 2, 4]), ("residual", [1, 3, 9]), ("pre", [1, 3, 5]), ("post", [1, 1, 1])])
def test_chains_by_hand(placement, sizes):
    doubling = 2 * torch.eye(2).expand(2, 2, 2)
    found = norms_figures.chain_sizes(torch.tensor([1.0, -1.0]), doubling, placement)
    assert found == pytest.approx(sizes)


def test_a_table_that_ends_is_said_to_end():
    curves = {"x": {64: [2.0, 2.1, 2.0], 512: [3.0, 3.2, 3.1]}, "table": {64: [1.0, 1.0, 1.0]}}
    row, table = positions_figures.length_rows(curves, 64, 512)
    assert row["the longer text is"] == "worse" and table["at 512"] == "ends"


def test_stretched_clocks_are_compared_with_linear_and_with_none():
    curves = {"RoPE as trained": {128: [2.0, 2.0, 2.1], 512: [4.0, 4.1, 4.0]},
              "linear": {128: [3.0, 3.0, 3.1], 512: [5.0, 5.1, 5.0]}}
    untouched, linear = positions_figures.stretch_rows(curves, 128, 512)
    assert untouched["than linear, at 128"] == "better"
    assert linear["than linear, at 128"] == "no clear difference"
    assert linear["than untouched, at 512"] == "worse"


def test_lengths_are_told_from_first_to_last():
    figure, alt = positions_figures.plot_lengths({"a": {64: [1.0, 3.0], 128: [4.0, 4.0]}}, 64)
    assert "a 2.00 at 64, 4.00 at 128." in alt
    plt.close(figure)


def test_arrangements_are_compared_seed_by_seed():
    trials = {"pre": {"0.1": [2.0, 2.1, 2.0], "0.5": [3.0, 3.0, 3.1]},
              "no norm": {"0.1": [1.0, 1.2, 1.0], "0.5": [1e9, 1e9, 1e9]},
              "post": {"0.1": [2.1, 2.0, 2.0], "0.5": [4.0, 4.1, 4.0]}}
    none, post = norms_figures.against(trials, "pre")
    assert none == {"arrangement": "no norm", "at lr 0.1": "lower", "at lr 0.5": "higher"}
    assert post["at lr 0.1"] == "no clear difference" and post["at lr 0.5"] == "higher"


def test_training_is_told_until_it_ends():
    streams = [[1.0, 2.0], [1.0, 40.0], [1.0, math.inf]]
    run = ([5.0, 7.0, math.nan], streams, [[0.5, 0.1], [9.0, 0.1]])
    figure, alt = norms_figures.plot_training({"x": run}, every=1)
    assert alt == ("Step by step. x: loss 5 to 7, stream behind the last layer 2 to 40, "
                   "gradient at the first 0.5 to 9.")
    plt.close(figure)


def test_precision_says_how_far_each_norm_can_be_trusted():
    sizes = [1e-3, 1.0, 300.0]
    figure, alt = norms_figures.plot_precision(
        sizes, {"good": [0.95, 1.0, 1.0], "half": [math.nan, 1.0, 0.0], "bad": [3.0, 2.0, 2.0]})
    assert alt == "Right within a tenth: good from 0.001 to 3e+02; half from 1 to 1; bad never."
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [float(line.get_ydata()[0]) for line in crosses] == [1e4, 1e-4]
    plt.close(figure)
