"""Mixtures: three ratios for one wish, and batches that keep to the weights."""

import math

import pytest
import torch

from scratchbook.data.batches import Windows
from scratchbook.data.mixing import Mixture, Sizes, measure, normal_weights, shares


def test_three_times_284_lines_are_not_three_quarters():
    sizes = {"code": Sizes(284, 9_000, 3_500), "books": Sizes(4_882 - 852, 240_000, 60_000)}
    found = shares(sizes, {"code": 3, "books": 1})
    assert found["code"]["lines"] == pytest.approx(852 / 4882)
    assert round(100 * found["code"]["lines"]) == 17
    assert len({round(share, 3) for share in found["code"].values()}) == 3
    for unit in Sizes._fields:
        assert sum(row[unit] for row in found.values()) == pytest.approx(1)


def test_sizes_are_counted_in_three_units():
    assert measure(["a\nb\n", "zwölf"], lambda text: text.split()) == Sizes(3, 10, 3)
    assert measure([], str.split) == Sizes(0, 0, 0)


def test_weights():
    assert normal_weights({"b": 1, "a": 3}, {"a": 0, "b": 0}) == {"a": 0.75, "b": 0.25}
    assert normal_weights({"a": math.inf, "b": 5}, {"a": 0, "b": 0}) == {"a": 1, "b": 0}
    assert normal_weights({"a": 0, "b": 0.1}, {"a": 0, "b": 0}) == {"a": 0, "b": 1}
    for wrong in ({"a": -1, "b": 2}, {"a": 0, "b": 0}, {"a": math.nan, "b": 1}):
        with pytest.raises(ValueError, match="must be 0 or more, and one above 0"):
            normal_weights(wrong, {"a": 0, "b": 0})
    with pytest.raises(ValueError, match="the weights are for a, c, the sources are a, b"):
        normal_weights({"a": 1, "c": 1}, {"a": 0, "b": 0})
    with pytest.raises(ValueError, match="are empty"):
        shares({"a": Sizes(0, 0, 0), "b": Sizes(1, 1, 1)}, {"a": 1, "b": 0})


def two_sources():
    low, high = torch.arange(1000) % 100, torch.arange(1000) % 100 + 100
    return {"low": Windows(low, low[:101], 10), "high": Windows(high, high[:51], 10)}


def test_the_rows_follow_the_weights():
    mixture = Mixture(two_sources(), {"low": 3, "high": 1}, seed=1)
    rows = torch.cat([mixture.batch(step, 16).ids[:, 0] for step in range(200)])
    # 3,200 draws at 0.75: four standard deviations are 0.031
    assert abs((rows < 100).float().mean() - 0.75) < 0.031
    for weights, wanted in (({"high": 1, "low": 0}, 0.0), ({"low": 0, "high": 1}, 0.0),
                            ({"low": math.inf, "high": 1}, 1.0)):
        ids = Mixture(two_sources(), weights).batch(0, 64).ids
        assert (ids < 100).float().mean() == wanted


def test_a_batch_depends_on_seed_and_step_alone():
    mixture = Mixture(two_sources(), {"low": 1, "high": 1}, seed=4)
    first = mixture.batch(5, 8)
    mixture.batch(6, 8)
    again = Mixture(two_sources(), {"high": 1, "low": 1}, seed=4).batch(5, 8)
    assert torch.equal(first.ids, again.ids) and first.mask is None
    assert torch.equal(first.ids[:, 1:], first.targets[:, :-1])
    drawn = {tuple(Mixture(two_sources(), {"low": 1, "high": 1}, seed=s).batch(5, 8).ids[:, 0]
                   .tolist()) for s in range(5)}
    assert len(drawn) > 1


def test_validation_reads_every_source():
    rows = torch.cat([b.ids for b in Mixture(two_sources(), {"low": 1, "high": 0}).validation(4)])
    assert len(rows) == 15 and int((rows[:, 0] >= 100).sum()) == 5
