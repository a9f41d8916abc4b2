"""The sentences of chapter 06's race say what the numbers say, whichever way they fall."""

import json
import math

import pytest
import torch

from scratchbook.companions import training_race as races
from scratchbook.companions.training_sweeps import best_rates
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.training.loop import activation_checkpointing
from scratchbook.training.memory import activation_numbers, kept_bytes


def side(curves, tried=None):
    return {"curves": curves, "losses": [line[-1][1] for line in curves],
            "seconds": [line[-1][0] for line in curves], "tried": tried or {"0.1": 1.0},
            "rate": 0.1, "steps": 4}


OLDER = side([[(10, 3.0), (20, 2.5)], [(10, 3.1), (20, 2.4)], [(10, 3.2), (20, 2.6)]])


def test_the_seconds_to_the_other_s_end_are_those_of_the_first_look_below_it():
    ours = side([[(4, 2.5), (8, 2.0)], [(5, 2.41), (10, 2.3)], [(5, 9.0), (10, 2.61)]])
    assert races.reached({"ours": ours, "older": OLDER}) == [20 / 4, 20 / 10, 0.0]
    row = races.side_rows({"ours": ours, "older": OLDER})[1]
    assert row["CPU s to the older's end"] == "at most 4, 10, inf"


def test_a_target_is_judged_by_all_seeds():
    raced = {name: side([[(1, loss)] for loss in losses]) for name, losses in {
        "nanoGPT": [2.0, 2.0, 2.0], "nanoGPT, long": [1.5], "ours": [1.4, 1.41, 1.42],
        "ours, long": [1.3, 1.5, 1.7]}.items()}
    said = {row["recipe"]: row["at most 1.500"] for row in races.as_documented(raced)}
    assert said == {"nanoGPT": "", "nanoGPT, long": "", "ours": "met", "ours, long": "not settled"}


def test_the_summary_takes_its_verdicts_from_the_runs():
    def raced(losses):
        return {"without": {"everything": {"losses": [1.0, 1.1, 1.2]},
                            "RoPE": {"losses": losses}}}

    better, worse = ({"ours": side([[(1, x)] for x in values]), "older": OLDER}
                     for values in ([1.0, 0.9, 1.1], [2.5, 2.6, 2.3]))
    assert "lower" in races.summary_lines(better, raced([2.0, 2.1, 2.2]))[0]
    assert "no clear difference" in races.summary_lines(worse, raced([2.0, 2.1, 2.2]))[0]
    assert "worse without RoPE" in races.summary_lines(better, raced([2.0, 2.1, 2.2]))[1]
    assert "no clear difference without RoPE" in races.summary_lines(
        better, raced([1.0, 1.2, 1.1]))[1]


def test_findings_of_a_run_that_raced_nothing():
    page = {"filmed": [5.5, 1.4], "bit for bit": [14, 14], "sides": {"ours": OLDER, "older": OLDER},
            "named": {"healthy": [], "a": ["x"], "b": []}}
    lines = races.findings(json.loads(json.dumps(page)))
    assert ("Of 2 planted illnesses 1 were noticed, with one seed, planted to be noticed; "
            "the healthy run was accused of 0.") in lines
    assert any("1.0, 1.0, 1.0 times" in line for line in lines)
    assert races.findings({}) == []


def test_a_best_rate_comes_with_those_that_are_not_told_apart_from_it():
    rows = best_rates({"4": {"0.1": [2.0, 2.1, 2.2], "1": [1.0, 1.1, 1.2], "3": [1.0, 1.2, 1.1]}})
    assert rows[0]["best rate"] == "1" and rows[0]["rates not told apart from it"] == "1, 3"


def test_another_rate_keeps_the_share_of_adamw_beside_muon():
    recipe = races.at_rate(races.OURS, 2 * races.OURS.train.lr, 100)
    assert recipe.train.adamw_lr == pytest.approx(2 * races.OURS.train.adamw_lr)
    assert recipe.train.max_steps == 100 and recipe.train.batch_size == 16


def test_what_autograd_keeps_is_near_the_forecast_and_shrinks_with_the_remedies():
    config = ModelConfig(256, max_seq_len=64, num_layers=2, d_model=64, num_heads=4)
    model, ids = DecoderLM(config), torch.zeros(8, 64, dtype=torch.long)
    plain = kept_bytes(model, ids)
    assert math.isclose(plain, 4 * activation_numbers(config, 8, 64), rel_tol=0.35)
    assert kept_bytes(model, ids[:4]) == pytest.approx(plain / 2, rel=0.05)
    with activation_checkpointing(model):
        assert kept_bytes(model, ids) < plain / 2
    weights = sum(p.numel() for p in model.parameters())
    assert kept_bytes(model, ids[:1, :1]) < 4 * weights  # weights do not count
