"""The figures of chapter 02 say in words what their data shows, whatever the data is."""

import matplotlib.pyplot as plt
import pytest
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


def test_rules_without_order_by_hand() -> None:
    found = figures.order_free(torch.tensor([[0, 0, 1]]))
    assert found["any letter of the word"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert found["any not yet said"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def numbers(worse: float) -> dict:
    runs = [0.9, 0.91, 0.92, 0.9]
    less = [run - worse * (1 + 0.1 * i) for i, run in enumerate(runs)]
    return {"right": {"with places": [1.0] * 4, "without places": less,
                      "any letter of the word": runs, "any not yet said": runs},
            "roots": {"with the root": {"0.01": runs, "0.03": runs},
                      "without": {"0.01": [0.91, 0.9, 0.91, 0.91], "0.03": less}},
            "places": figures.place_rows({"mask, start sign": runs, "mask": less,
                                          "no mask": [0.125, 0.12, 0.14, 0.13]}, 500, 8),
            "noise": {"no mask": [1.12, 1.121, 1.119, 1.12], "causal": [32.0, 32.1, 32.0, 32.1]},
            "predicted": 1.114,
            "decided": [{"d": 1024, "largest weight": 0.95}, {"d": 1024, "largest weight": 0.24}]}


def test_each_other_start_is_held_against_the_usual_one() -> None:
    usual = [0.99, 0.98, 1.0]
    rows = figures.start_rows(usual, {"decided": [0.99, 0.97, 1.0], "soft": [0.5, 0.48, 0.51]})
    assert [row["head"] for row in rows] == ["decided", "soft"]
    assert [row["against its usual start with the root"] for row in rows] == [
        "no clear difference", "lower"]
    assert rows[1]["letters right"] == "0.48 to 0.51"


def test_table_box_and_summary_tell_the_same() -> None:
    for worse, word, count in ((0.5, "lower", 1), (0.0, "no clear difference", 0)):
        told = numbers(worse)
        rows = figures.root_rows(told["roots"])
        assert [row["without, against with"] for row in rows] == ["no clear difference", word]
        lines = figures.findings(told)
        assert f"{word} at learning rate 0.03" in lines[1] and "within 0.05: met" in lines[4]
        assert f"any letter of the word: {word}" in lines[2]
        short = figures.summary_lines(told)
        assert f"clearly worse at {count} of 2 learning rates" in short[0]
        assert "in 4 of 4 seeds, without the mask in 0 of 4." in short[1]
        assert "mask, start sign 4 of 4, mask 4 of 4, no mask 0 of 4." in lines[3]
    far = numbers(0.5)
    far["noise"]["no mask"] = [1.12, 1.3, 1.0, 1.12]
    assert "within 0.05: not settled" in figures.findings(far)[4]


def test_shares_from_worst_to_best() -> None:
    assert figures.share_rows("who", {"a": [0.5, 0.25]}) == [
        {"who": "a", "mean": 0.375, "worst seed": 0.25, "best seed": 0.5}]


def test_a_seed_is_above_a_set_by_four_standard_errors() -> None:
    rows = figures.place_rows({"start sign": [0.25, 0.27, 0.29], "none": [0.125, 0.14, 0.16]},
                              500, 8)
    assert [row["a set allows"] for row in rows] == [0.25, 0.125]
    assert [row["seeds above"] for row in rows] == ["1 of 3", "1 of 3"]
