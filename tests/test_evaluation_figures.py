"""Chapter 06c's figures say in words what they show."""

import json

import pytest
import torch

pytest.importorskip("matplotlib")
from scratchbook.companions import evaluation_figures as figures


def report(share: float, perplexity: float) -> dict:
    passed = round(40 * share)
    test = {"share": share, "low": share / 2, "high": (1 + share) / 2, "prompts": "x",
            "outcomes": [1] * passed + [0] * (40 - passed)}
    signal = {"value": share, "low": share, "high": share}
    names = ("spacing", "known_words", "syntax_errors", "loops", "drift", "distinct")
    return {"tests": {"brackets": test, "words": test}, "signals": dict.fromkeys(names, signal),
            "texts": {"code": {"perplexity": perplexity, "low": perplexity / 2,
                               "high": perplexity * 2}}}


def test_before_and_after_have_four_panels_with_intervals() -> None:
    figure, alt = figures.plot_panels({"before": report(0.2, 248.0), "after": report(0.7, 30.0)})
    assert [ax.get_title() for ax in figure.axes] == ["Perplexity", "Test scores",
                                                      "Generation quality", "Overall"]
    for ax in figure.axes:
        assert ax.containers, "bars and their error bars"
        assert any("ErrorbarContainer" in type(c).__name__ for c in ax.containers)
    assert "Perplexity, before: code 248.00. Perplexity, after: code 30.00." in alt
    assert "Test scores, after: brackets 0.70, words 0.70" in alt
    assert "syntax 0.80" in alt.split("Generation quality, before")[1]


def test_a_single_evaluation_without_tests_is_drawn_too() -> None:
    figure, alt = figures.plot_panels({"one": {"texts": report(0.5, 9.0)["texts"]}})
    assert len(figure.axes) == 4 and "code 9.00" in alt


def test_tests_tradeoff_and_checkpoints_are_told() -> None:
    shares = {"model": 0.6, "control": 0.3}
    results = {who: report(share, 2.0)["tests"] for who, share in shares.items()}
    _, alt = figures.plot_tests(results, ["brackets"])
    assert alt == "Share passed. model: brackets 0.60; control: brackets 0.30."
    points = [{"kind": "top-k", "label": "5", "distinct": 0.4, "known words": 0.9}]
    assert "top-k 5: 0.90 and 0.40" in figures.plot_tradeoff(points)[1]
    rows = [{"step": step, "bits per byte": 4 - step, "brackets": step / 4} for step in (0, 1, 2)]
    figure, alt = figures.plot_checkpoints(rows)
    assert "Bits per byte 4.00 to 2.00; at the end brackets 0.50." in alt
    assert len(figure.axes) == 2


def test_the_sampler_gets_scores_of_every_byte() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(256, 4), torch.nn.Linear(4, 256))
    data = figures.sampler_data(model, {"one": "def <", "two": "import "})
    assert len(data["tokens"]) == 256 and data["tokens"][10] == "\n"
    assert all(len(c["logits"]) == 256 and max(c["logits"]) == 0 for c in data["contexts"])
    json.dumps(data, allow_nan=False)
    still = figures.sampler_still(data)
    assert "def &lt;" in still and still.count("<tr>") == 2
