"""The figures of chapter 05 say in words what their data shows, whatever the data is."""

import json

import matplotlib.pyplot as plt
import pytest
import torch

from scratchbook.companions import blocks_figures as figures
from scratchbook.config import PRESETS


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_bends_are_read_off_at_minus_one() -> None:
    x = torch.linspace(-2, 2, 41)
    _, alt = figures.plot_bends(x, {"relu": x.clamp(min=0), "line": x})
    assert "relu gives 0.00, line gives -1.00" in alt


def test_the_family_is_told_with_its_interval() -> None:
    figure, alt = figures.plot_family({"a": [1.0, 2.0, 3.0], "b": [4.0, 4.0, 4.0]})
    assert "a 2.000 ± 2.484, b 4.000 ± 0.000" in alt
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_a_norm_stands_on_the_stream_in_one_layout_only() -> None:
    figure, alt = figures.draw_layouts()
    on_stream = {ax.get_title(): sum(t.get_text() == "norm" and t.get_position()[0] == 0
                                     for t in ax.texts) for ax in figure.axes}
    assert on_stream == {"pre": 0, "post": 2, "parallel": 0, "sandwich": 0}
    counts = {ax.get_title(): sum(t.get_text() == "norm" for t in ax.texts) for ax in figure.axes}
    assert counts == {"pre": 2, "post": 2, "parallel": 1, "sandwich": 4}
    assert "Sandwich: norm, part, norm, sum, twice." in alt


def test_depth_and_rates_give_their_ends() -> None:
    _, alt = figures.plot_depth({"plain": [1.0, 2.0, 3.5]}, [1.0, 2.0, 3.0])
    assert "plain: from 1.00 to 3.50." in alt
    _, alt = figures.plot_rates({"pre": {0.1: [2.0, 4.0], 0.01: [1.0, 1.0]}}, 4.5)
    assert "rates 0.01, 0.1: pre 1.00, 3.00. Counting bytes alone gives 4.50." in alt


def test_load_is_sorted_in_each_run_before_the_mean() -> None:
    _, alt = figures.plot_load({"a": [[0.1, 0.9], [0.7, 0.3]], "b": [[0.5, 0.5]]})
    assert "over 2 experts. a: busiest 80%, idlest 20.0%. b: busiest 50%, idlest 50.0%" in alt


def test_the_still_picture_and_the_data_of_the_living_one() -> None:
    presets = {name: PRESETS[name] for name in ("gpt2", "llama-3-8b")}
    svg = figures.parts_still(presets)
    assert "gpt2 124,439,808, feed-forward 46%" in svg and svg.startswith("<svg")
    data = json.loads(json.dumps(figures.live_data(presets, "gpt2")))
    assert data["start"] == "gpt2" and data["presets"]["llama-3-8b"]["num_kv_heads"] == 8


def numbers(gelu: float = 2.0) -> dict:
    near = [gelu, gelu + 0.1, gelu + 0.3]
    far = [2.5, 2.61, 2.8]
    kinds = dict.fromkeys(("no bend", "ReLU", "ReLU²", "GEGLU", "SwiGLU"), far) | {"GELU": near}
    layouts = {name: {"0.1": near, "0.2": far} for name in ("pre", "post")}
    return {"family": kinds, "layouts": layouts, "blind": 2.7,
            "experts": {"dense": far, "no balance loss": near, "with balance loss": near},
            "loads": dict.fromkeys(("no balance loss", "with balance loss"), [[0.75, 0.25]])}


def test_insights_summary_and_tables_give_one_verdict() -> None:
    found = figures.findings(numbers())
    assert "SwiGLU against GELU: higher (" in found[1] and found[2].endswith("pre 1, post 1.")
    assert "with balance loss against dense: lower (" in found[3]
    assert figures.summary_lines(numbers())[1].endswith("with balance loss against dense: lower.")
    rows = {row["compared"]: row["verdict"]
            for row in (c.row() for c in figures.compare_family(numbers()["family"]))}
    assert rows["SwiGLU against GELU"] == "higher"
    blown = figures.findings(numbers(gelu=1e9))
    assert "SwiGLU against GELU: the other blew up in 3 of 3;" in blown[1]
