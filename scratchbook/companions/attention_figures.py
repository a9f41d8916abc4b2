"""The drawing behind chapter 02's figures: each function returns a figure and its alternative text.

Chapter:  chapters/02_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from scratchbook.teaching.figures import INK, figure_svg, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POWERS = (1, 3, 10, 32)


def plane_still(words: Sequence[str], k: Tensor, q: Tensor, weights: Sequence[float]) -> str:
    """Keys and a query as arrows, weights as bars: what the living figure shows at rest."""
    import matplotlib.pyplot as plt

    figure, (plane, bars) = plt.subplots(1, 2, figsize=(6.4, 3.0), width_ratios=[1.2, 1])
    for colour, word, (x, y) in zip(palette(), words, k.tolist(), strict=False):
        plane.annotate("", (x, y), (0, 0), arrowprops={"color": colour, "width": 1.5})
        plane.plot(x, y, "o", color=colour)
        side = "right" if x < 0 else "left"
        plane.text(x + (-0.2 if x < 0 else 0.2), y, word, ha=side, va="center")
    plane.annotate("", q.tolist(), (0, 0), arrowprops={"color": INK, "width": 2})
    plane.text(float(q[0]) + 0.1, float(q[1]) - 0.3, "query")
    plane.set(xlim=(-3, 3), ylim=(-3, 3), xlabel="noun", ylabel="verb", aspect="equal")
    bars.barh(words[::-1], weights[::-1], color=palette()[len(words) - 1 :: -1])
    bars.set(xlabel="weight")
    alt = "Keys and a query in a plane, and the weights: " + ", ".join(
        f"{word} {weight:.2f}" for word, weight in zip(words, weights, strict=True))
    svg = figure_svg(figure, alt)
    plt.close(figure)
    return svg


def plot_variance(sizes: Sequence[int], plain: Sequence[float],
                  scaled: Sequence[float]) -> tuple[Figure, str]:
    """Variance of the scores against the head size, with and without the root."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ax.loglog(sizes, sizes, color=INK, lw=1, ls=":", label="prediction: d")
    ax.loglog(sizes, plain, "o", label="q · k")
    ax.loglog(sizes, scaled, "s", label="q · k / √d")
    ax.set(xlabel="head size d", ylabel="variance of the scores")
    ax.legend()
    return figure, (
        f"Variance of the scores against head sizes {sizes[0]} to {sizes[-1]}. Plain, it rises "
        f"from {plain[0]:.2f} to {plain[-1]:.0f}; divided by the root of d it stays between "
        f"{min(scaled):.2f} and {max(scaled):.2f}.")


def plot_masks(masks: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """Boolean masks side by side, filled where a query may look."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(["#00000000", palette()[0]])
    figure, axes = plt.subplots(1, len(masks), figsize=(7.2, 2.6))
    for ax, (name, mask) in zip(axes, masks.items(), strict=True):
        ax.pcolormesh(mask.int(), cmap=colours, vmin=0, vmax=1, edgecolors=INK, linewidth=0.3)
        ax.set(xlabel="key", aspect="equal", xticks=[], yticks=[])
        ax.set_title(name, fontsize=9)
        ax.invert_yaxis()
    axes[0].set_ylabel("query")
    return figure, "Masks, filled where a query may look. " + " ".join(
        f"{name}: row by row {mask.sum(-1).tolist()} of {mask.shape[-1]} keys."
        for name, mask in masks.items())


def plot_maps(maps: Mapping[str, Tensor], letters: Sequence[str]) -> tuple[Figure, str]:
    """Attention maps over the same letters: rows ask, columns are looked at."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(maps), figsize=(7.2, 3.6), layout="constrained")
    ticks = [position + 0.5 for position in range(len(letters))]
    for ax, (name, weights) in zip(axes, maps.items(), strict=True):
        picture = ax.pcolormesh(weights, vmin=0, vmax=1, edgecolors="face", linewidth=0.3)
        ax.set(title=name, xlabel="looked at", aspect="equal")
        ax.set_xticks(ticks, letters)
        ax.set_yticks(ticks, letters)
        ax.invert_yaxis()
    axes[0].set_ylabel("asks")
    figure.colorbar(picture, ax=axes, label="weight", shrink=0.8)
    return figure, f"Attention maps over {''.join(letters)}. " + " ".join(
        f"{name}: the last row looks most at letter {int(weights[-1].argmax()) + 1}, with weight "
        f"{float(weights[-1].max()):.2f}." for name, weights in maps.items())


def plot_perplexity(curves: Mapping[str, Sequence[Sequence[float]]],
                    levels: Sequence[float]) -> tuple[Figure, str]:
    """Perplexity over training, ten steps averaged, one line per seed; dotted: predictions."""
    import matplotlib.pyplot as plt
    import torch

    figure, ax = plt.subplots()
    ends = []
    for colour, (name, seeds) in zip(palette(), curves.items(), strict=False):
        lines = [torch.tensor(losses).unfold(0, 10, 10).mean(-1).exp() for losses in seeds]
        for line in lines:
            label = name if line is lines[0] else None
            ax.semilogy(range(10, 10 * len(line) + 1, 10), line, color=colour, lw=1.2, label=label)
        last = [float(line[-1]) for line in lines]
        ends.append(f"{name}: ends at {min(last):.2f} to {max(last):.2f}.")
    steps = 10 * len(line)
    for level in levels:
        ax.axhline(level, color=INK, ls=":", lw=1)
        ax.text(steps, level * 1.06, f"{level:.2f}", ha="right")
    _perplexity_axis(ax, "training step")
    return figure, f"Perplexity over {steps} training steps. " + " ".join(ends)


def plot_by_position(perplexity: Mapping[str, Tensor]) -> tuple[Figure, str, str]:
    """Perplexity at each position of the text; the third part is a caption."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 2.8))
    found = []
    for colour, (name, values) in zip(palette(), perplexity.items(), strict=False):
        ax.semilogy(range(1, len(values) + 1), values, "o-", ms=4, lw=1, color=colour, label=name)
        found.append(f"{name}: {float(values[:-1].min()):.2f} to {float(values[:-1].max()):.2f} "
                     f"before the last position, {float(values[-1]):.1f} there")
    _perplexity_axis(ax, "position in the text", legend="center")
    caption = "; ".join(found) + "."
    return figure, f"Perplexity by position. {caption}", caption[0].upper() + caption[1:]


def _perplexity_axis(ax, xlabel: str, legend: str = "center right") -> None:
    ax.set(xlabel=xlabel, ylabel="perplexity", yticks=POWERS, yticklabels=POWERS)
    ax.minorticks_off()
    ax.legend(loc=legend)
