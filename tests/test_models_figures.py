"""Chapter 05b's figures say in words what they show."""

import json

import pytest
import torch

pytest.importorskip("matplotlib")
from scratchbook.companions import models_figures as figures

HEADER = {"__metadata__": {"format": "pt"}, "wte": {"data_offsets": [0, 600]},
          "h.0.mlp.w": {"data_offsets": [600, 800]}, "ln": {"data_offsets": [800, 900]}}


def test_the_file_is_told_by_kinds_of_bytes() -> None:
    figure, alt = figures.plot_file(HEADER, {"wte": "tokens", "mlp": "feed-forward"}, 100)
    assert alt == ("A file of 1,000 bytes, 3 tensors: header 10.0%, tokens 60.0%, "
                   "feed-forward 20.0%, the rest 10.0%.")
    ends = max(bar.get_x() + bar.get_width() for bar in figure.axes[0].patches)
    assert ends == pytest.approx(1.0)
    json.dumps(alt)


def test_the_closest_sentences_are_named() -> None:
    likeness = torch.tensor([[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]])
    figure, alt = figures.plot_similarity(["a cat", "a rate", "a kitten"], likeness)
    assert "Closest: “a cat” and “a kitten” 0.90; “a cat” and “a rate” 0.20" in alt
    assert [t.get_text() for t in figure.axes[0].texts][:3] == ["1.00", "0.20", "0.90"]


def test_the_first_gap_beyond_the_tolerance_is_named_nan_too() -> None:
    runs = {"right": {"a": 0.0, "b": 2e-7}, "wrong": {"a": 1e-7, "b": 0.5}}
    _, alt = figures.plot_gaps(runs, 1e-4)
    assert "right: at most 2e-07, never beyond." in alt
    assert "wrong: at most 5e-01, first beyond the tolerance at b." in alt
    _, alt = figures.plot_gaps({"broken": {"a": float("nan"), "b": 0.5}}, 1e-4)
    assert "first beyond the tolerance at a." in alt


def test_steps_are_told_beside_the_time_that_reading_takes() -> None:
    rows = [{"type": kind, "batch": 1, "who": who, "milliseconds": time}
            for kind, times in (("float32", (30, 42, 41, 35)), ("bfloat16", (15, 48, 39, 22)))
            for who, time in zip(("reading", "transformers", "plain", "fast"), times, strict=True)]
    figure, alt = figures.plot_steps(rows)
    assert "float32, 1 at a time: transformers 42, plain 41, fast 35, reading 30" in alt
    assert [bar.get_width() for bar in figure.axes[0].patches] == [42, 41, 35, 48, 39, 22]


def test_a_missed_target_is_called_missed() -> None:
    row = {"type": "float32", "batch": 1, "ratio": 1.2, "target": 1.5, "at_the_limit": 1.4}
    plain, fast = row | {"who": "plain", "verdict": "met"}, row | {
        "who": "fast", "verdict": "missed"}
    assert [told["verdict"] for told in figures.targets([plain, fast])] == ["missed"]


def test_findings_say_what_the_numbers_say():
    numbers = {"bits": {"theirs": 3.4, "turned when it must": 4.0}, "costs": [0.01, 0.6],
               "errors": {"a": 0.0, "b": 2e-6}}
    lines = figures.findings(numbers)
    assert "2 random models" in lines[0] and "2e-06" in lines[0]
    assert "cost 0.010 to 0.600" in lines[1] and len(lines) == 2
    assert "factor 2.9" in figures.findings(numbers | {"saved": [2.9, 109.0]})[2]
