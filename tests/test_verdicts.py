"""Sentences that numbers write: how often is a winner named where there is none?"""

import math

import pytest
import torch

from scratchbook.teaching import mean_and_spread, verdict


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
