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


def run_of_positions() -> dict:
    """Made-up numbers of chapter 03, as JSON gives them back: lengths are text."""
    kinds = {"none": 3.0, "sinusoids": 2.5, "ALiBi": 2.4, "RoPE": 2.3}
    curves = {kind: {"64": [at, at + 0.1, at], "512": [at + 1, at + 1.2, at + 1]}
              for kind, at in kinds.items()} | {
        "learned": {"64": [3.1, 3.0, 3.05]}, "learned, loud": {"64": [3.5, 3.5, 3.6]}}
    stretched = {"RoPE as trained": curves["RoPE"],
                 "linear": {"512": [3.5, 3.7, 3.5]}, "ntk": {"512": [2.5, 2.6, 2.5]}}
    return {"trained": 64, "lengths": [64, 512], "curves": curves, "stretched": stretched,
            "nearby": {kind: [at, at, at] for kind, at in kinds.items()},
            "at_home": {"linear": [2.9, 3.0, 2.9], "ntk": [2.3, 2.4, 2.3]},
            "past_end": {"second word, wrapped": [0.5], "second word, cropped": [1.0]}}


def test_a_table_that_ends_is_said_to_end():
    run = run_of_positions()
    rows = positions_figures.length_rows(run["curves"], run["nearby"], 64, 512)
    told = {row["places"]: row for row in rows}
    assert told["RoPE"]["the longer text is"].startswith("worse (+1.0")
    assert told["RoPE"]["without far keys it is"].startswith("better (-1.0")
    assert told["learned"]["at 512"] == "ends"
    assert told["learned"]["the longer text is"] == "an error"


def test_stretched_clocks_are_compared_with_the_trained_one_at_both_lengths():
    run = run_of_positions()
    linear, ntk = positions_figures.stretch_rows(run["stretched"], run["at_home"], 64, 512)
    assert linear["than as trained, at 512"].startswith("worse")
    assert linear["than as trained, at 64"].startswith("worse (+0.6")
    assert ntk["than as trained, at 512"].startswith("better")
    assert ntk["than as trained, at 64"].startswith("no clear difference")


def test_insights_and_summary_of_positions_say_what_the_tables_say():
    run = run_of_positions()
    told = " ".join(positions_figures.findings(run))
    assert "learned against none: no clear difference" in told
    assert "RoPE against ALiBi: better (-0.100" in told
    assert "learned, loud against learned: worse" in told and "linear worse (+0.6" in told
    assert "50% of the letters" in told
    first, second = positions_figures.summary_lines(run)
    assert first.endswith(": learned no clear difference, sinusoids better, ALiBi better, "
                          "RoPE better.")
    assert "none worse" in second and second.endswith(" The table ends.")


def test_lengths_are_told_from_first_to_last():
    figure, alt = positions_figures.plot_lengths({"a": {64: [1.0, 3.0], 128: [4.0, 4.0]}}, 64)
    assert "a 2.00 at 64, 4.00 at 128." in alt
    plt.close(figure)


def made_up_trials() -> dict:
    """Losses by arrangement and rate; without a final norm the runs at 0.5 blow up."""
    rates = {name: {"0.05": [2.0, 2.1, 2.0], "0.5": [3.0, 3.0, 3.1]}
             for pair in norms_figures.CHANGES.values() for name in pair}
    rates["pre, no final norm"] = {"0.05": [1.0, 1.2, 1.0], "0.5": [9.0, 50.0, 1e9]}
    rates["no norm"] = {"0.05": [1.1, 1.1, 1.0], "0.5": [1e9, 1e9, 1e9]}
    return rates


def test_each_change_is_made_alone_and_judged_seed_by_seed():
    rows = {row["added or changed"]: row
            for row in norms_figures.change_rows(made_up_trials(), blind=3.0)}
    final = rows["a final norm, to norms in the parts"]
    assert final["at lr 0.05"] == "higher (+0.97\u00a0±\u00a00.14)"
    # losses of 9, 50 and 1e9 have no mean to compare: they are counted
    assert final["at lr 0.5"] == "the other blew up in 3 of 3"
    post = rows["post instead of pre"]["at lr 0.5"]
    assert post.startswith("no clear difference (")


def test_the_closing_sentences_say_what_the_table_says():
    numbers = {"trials": made_up_trials(), "blind": 3.0, "depth": 6, "chain_layers": 30,
               "chain": 811.4, "chain_normed": 1.0}
    said = norms_figures.findings(numbers)
    assert said[0].startswith("Blown up at a learning rate of 0.5, 6 layers:")
    assert "no norm 3 of 3" in said[0] and ", pre 0 of 3" in said[0]
    line = ("The loss with a final norm, to norms in the parts, beside that without: at lr 0.05 "
            "higher (+0.97\u00a0±\u00a00.14); at lr 0.5 the other blew up in 3 of 3.")
    assert line in said and norms_figures.summary_lines(numbers) == [line]


def test_training_is_told_until_it_ends():
    streams = [[1.0, 2.0], [1.0, 40.0], [1.0, math.inf]]
    run = ([5.0, 7.0, math.nan], streams, [[0.5, 0.1], [9.0, 0.1]])
    figure, alt = norms_figures.plot_training({"x": run}, every=1)
    assert alt == ("Step by step. x: loss 5 to 7, stream behind the last layer 2 to 40, "
                   "gradient at the first 0.5 to 9.")
    plt.close(figure)


def test_precision_says_how_far_each_norm_can_be_trusted():
    sizes = [1e-5, 1e-3, 1.0, 300.0]
    lines = {"good": [0.1, 0.95, 1.0, 1.0], "half": [0.1, math.nan, 1.0, 0.0],
             "bad": [0.1, 3.0, 2.0, 2.0], "gap": [1.0, 3.0, 1.0, 1.0]}
    figure, alt = norms_figures.plot_precision(sizes, lines)
    assert alt == ("Right within a tenth: good from 0.001 to 3e+02; half from 1 to 1; bad never; "
                   "gap from 1 to 3e+02.")
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [float(line.get_ydata()[0]) for line in crosses] == [1e4, 1e-4]
    plt.close(figure)
