"""The drawing behind chapter 02's figures: each function returns a figure and its alternative text.

Chapter:  chapters/02_attention.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.teaching.figures import INK, figure_svg, palette
from scratchbook.teaching.verdicts import Comparison, comparisons

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POWERS = (1, 3, 10, 32)
Runs = Mapping[str, Sequence[float]]


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


# -------------------------------------------------------------------------------- tables, verdicts


def order_free(words: Tensor) -> dict[str, float]:
    """The share of letters that two rules without any order get right, on average.

    Shapes:   words (batch, time), the letters to be said in this order
    """
    places = range(words.shape[1])

    def share(first: Callable[[int], int]) -> float:
        hits = [(words[:, first(j):] == words[:, j, None]).float().mean() for j in places]
        return float(sum(hits)) / len(hits)

    return {"any letter of the word": share(lambda j: 0), "any not yet said": share(lambda j: j)}


def share_rows(label: str, runs: Runs) -> list[dict]:
    """A row for each way: the mean of its shares, the worst and the best seed."""
    return [{label: name, "mean": sum(shares) / len(shares), "worst seed": min(shares),
             "best seed": max(shares)} for name, shares in runs.items()]


def compare_order(right: Runs) -> list[Comparison]:
    """The copier without places against the two rules that need no order, on the same words."""
    return comparisons(right, [("without places", "any letter of the word"),
                               ("without places", "any not yet said")], unit="of the letters")


def compare_roots(roots: Mapping[str, Runs]) -> dict[str, Comparison]:
    """At each learning rate, the wide head without the root against the one with it."""
    return {str(lr): Comparison("without", "with the root", runs, roots["with the root"][lr])
            for lr, runs in roots["without"].items()}


def start_rows(whole: Sequence[float], starts: Runs) -> list[dict]:
    """A row for each head that began otherwise: its seeds, and the verdict against `whole`."""
    found = comparisons({"with": whole} | dict(starts), against="with")
    return [{"head": one.name, "letters right": span(one.first),
             "against its usual start with the root": one.word} for one in found]


def place_rows(told: Runs, words: int, length: int) -> list[dict]:
    """A row for each view: shares of places told right, beside the most that a set allows.

    In a set all places look alike, but for that of a start sign: one of `length` can be right,
    or two. A seed is above that when its share over `words` texts is, by four standard errors.
    """
    rows = []
    for row in share_rows("seen through", told):
        most = (2 if "start" in row["seen through"] else 1) / length
        limit = most + 4 * math.sqrt(most * (1 - most) / (words * length))
        above = sum(share > limit for share in told[row["seen through"]])
        rows.append(row | {"a set allows": most,
                           "seeds above": f"{above} of {len(told[row['seen through']])}"})
    return rows


def span(values: Sequence[float]) -> str:
    """The least and the largest of some numbers."""
    return f"{min(values):.2f} to {max(values):.2f}"


def root_rows(roots: Mapping[str, Runs]) -> list[dict]:
    """A row for each learning rate: both ways from worst to best seed, and the verdict."""
    return [{"learning rate": f"{float(lr):g}", "with the root": span(one.second),
             "without": span(one.first), "without, against with": one.word}
            for lr, one in compare_roots(roots).items()]


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    right, noise, bound = numbers["right"], numbers["noise"], numbers["predicted"]
    near = bound_verdict(noise["no mask"], at_least=bound - 0.05, at_most=bound + 0.05)
    undivided, divided = (row["largest weight"] for row in numbers["decided"])
    return [
        f"Without the root, one key of 16 took {undivided:.0%} of the weight at "
        f"d = {numbers['decided'][0]['d']:,}; with it {divided:.0%}.",
        "A head of size 256 without the root, against one with it: " + ", ".join(
            f"{one.word} at learning rate {float(lr):g}"
            for lr, one in compare_roots(numbers["roots"]).items()) + ".",
        f"Letters copied: {span(right['with places'])} with places, "
        f"{span(right['without places'])} without. "
        + "; ".join(map(str, compare_order(right))) + ".",
        "Places told without position vectors, seeds above what a set allows: " + ", ".join(
            f"{row['seen through']} {row['seeds above']}" for row in numbers["places"]) + ".",
        f"Perplexity on noise: {span(noise['no mask'])} without a mask (predicted {bound:.3f}; "
        f"within 0.05: {near}), {span(noise['causal'])} with one."]


def summary_lines(numbers: Mapping) -> list[str]:
    """Those lines of the Summary that hold a result of this run."""
    roots = compare_roots(numbers["roots"])
    worse = [f"{float(lr):g}" for lr, one in roots.items() if one.word == "lower"]
    above = {row["seen through"]: row["seeds above"] for row in numbers["places"]}
    return [
        f"Dividing by $\\sqrt d$ keeps a fresh softmax soft. Trained without it, a wide head was "
        f"clearly worse at {len(worse)} of {len(roots)} learning rates"
        + (f" ({', '.join(worse)})." if worse else "."),
        "Without a mask attention sees a set. The causal mask lets a trace of the order through: "
        f"more places were told than a set allows in {above['mask']} seeds, without the mask in "
        f"{above['no mask']}."]
