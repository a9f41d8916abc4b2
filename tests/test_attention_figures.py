"""The figures of chapter 02 say in words what their data shows, whatever the data is."""

import matplotlib.pyplot as plt
import torch

from scratchbook.attention import causal_mask
from scratchbook.companions import attention_figures as figures


def test_masks_are_counted_row_by_row() -> None:
    figure, alt = figures.plot_masks({"a": causal_mask(3), "b": causal_mask(1, past=2)})
    assert "a: row by row [1, 2, 3] of 3 keys." in alt
    assert "b: row by row [3] of 3 keys." in alt
    assert len(figure.axes) == 2
    plt.close(figure)


def test_maps_name_where_the_last_row_looks() -> None:
    figure, alt = figures.plot_maps({"x": torch.eye(3), "y": torch.eye(3).flip(0)}, "abc")
    assert "x: the last row looks most at letter 3, with weight 1.00." in alt
    assert "y: the last row looks most at letter 1, with weight 1.00." in alt
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == list("abc")
    plt.close(figure)


def test_variance_gives_both_ranges() -> None:
    figure, alt = figures.plot_variance([1, 4], [1.0, 4.5], [1.0, 1.25])
    assert "from 1.00 to 4" in alt and "between 1.00 and 1.25" in alt
    plt.close(figure)


def test_perplexity_is_averaged_over_ten_steps() -> None:
    losses = [0.0] * 10 + [1.0] * 10
    figure, alt = figures.plot_perplexity({"flat": [losses, [2.0] * 20]}, [32.0])
    assert "over 20 training steps" in alt
    assert f"flat: ends at {torch.tensor(1.0).exp():.2f} to {torch.tensor(2.0).exp():.2f}." in alt
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [10, 20]
    plt.close(figure)


def test_the_last_position_is_told_apart() -> None:
    figure, alt, caption = figures.plot_by_position({"open": torch.tensor([1.0, 1.5, 40.0])})
    assert caption == "Open: 1.00 to 1.50 before the last position, 40.0 there."
    assert caption[1:] in alt
    plt.close(figure)


def test_the_still_picture_names_every_weight() -> None:
    k, q = torch.tensor([[2.0, 0.0], [-1.0, -1.0]]), torch.tensor([1.0, -1.0])
    svg = figures.plane_still(["cat", "it"], k, q, [0.9, 0.1])
    assert "cat 0.90, it 0.10" in svg and svg.startswith("<svg")
