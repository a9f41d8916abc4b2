"""What stands behind chapter 05's figures and sentences.

A function that draws returns a figure and its alternative text; `findings` writes the Insights.

Chapter:  chapters/05_blocks.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from torch import Tensor

from scratchbook.accounting import count_parameters
from scratchbook.config import ModelConfig
from scratchbook.evaluation.comparing import mean_and_spread
from scratchbook.teaching.figures import INK, figure_svg, palette
from scratchbook.teaching.verdicts import Comparison, comparisons

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS = (("GELU", "no bend"), ("GELU", "ReLU"), ("ReLU²", "GELU"), ("GEGLU", "GELU"),
         ("SwiGLU", "GELU"), ("SwiGLU", "ReLU²"))
BITS = "bits per byte"
LIVE_FIELDS = ("vocab_size", "max_seq_len", "num_layers", "d_model", "num_heads", "num_kv_heads",
               "head_dim", "d_ff", "feedforward", "norm", "layout", "positions", "window",
               "latent_dim", "bias", "qk_norm", "tie_embeddings")
# what a layout does to the stream, from below: n is a norm, a and f the parts, + the sum
LAYOUT_STEPS = {"pre": ("n a +", "n f +"), "post": ("a + n", "f + n"), "parallel": ("n af +",),
                "sandwich": ("n a n +", "n f n +")}


def plot_bends(x: Tensor, curves: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """Activations side by side on one axis; the text says what each leaves of -1."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    for style, (name, y) in zip(("-", "--", "-.", ":"), curves.items(), strict=False):
        ax.plot(x, y, style, label=name)
    ax.axhline(0, color=INK, lw=0.6)
    ax.axvline(0, color=INK, lw=0.6)
    ax.set(xlabel="what the unit read", ylabel="what it passes on", ylim=(-0.6, 3))
    ax.legend()
    at = int((x + 1).abs().argmin())
    return figure, f"Activations from {float(x[0]):g} to {float(x[-1]):g}. At -1: " + ", ".join(
        f"{name} gives {float(y[at]):.2f}" for name, y in curves.items()) + "."


def plot_family(losses: Mapping[str, Sequence[float]], unit: str = "bits per byte"
                ) -> tuple[Figure, str]:
    """One row per kind: a dot for every seed, the mean and its 95 % interval as a bar."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 0.4 * len(losses) + 0.9))
    said = []
    for row, (name, values) in enumerate(losses.items()):
        mean, half = mean_and_spread(list(values))
        ax.errorbar(mean, row, xerr=half, fmt="|", ms=14, color=palette()[0], capsize=3, lw=1.5)
        ax.plot(values, [row] * len(values), "o", ms=4, color=palette()[1], alpha=0.8)
        said.append(f"{name} {mean:.3f} ± {half:.3f}")
    ax.set(yticks=range(len(losses)), yticklabels=list(losses), xlabel=f"{unit}, held-out text")
    ax.invert_yaxis()
    ax.grid(axis="x")
    return figure, f"{unit.capitalize()} by kind, mean and 95 % interval: {', '.join(said)}."


def draw_layouts() -> tuple[Figure, str]:
    """The four layouts as wiring: the stream runs upward, the parts hang on it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(LAYOUT_STEPS), figsize=(7.2, 4.2))
    for ax, (name, parts) in zip(axes, LAYOUT_STEPS.items(), strict=True):
        ax.set(xlim=(-0.9, 2.3), ylim=(-0.6, 10.4), aspect="equal")
        ax.axis("off")
        ax.set_title(name)
        height = 0.0
        for steps in parts:
            height = _draw_part(ax, steps.split(), height)
        ax.annotate("", (0, height + 0.7), (0, -0.5), arrowprops={
            "arrowstyle": "->", "color": INK, "lw": 1.6}, zorder=1)
    return figure, (
        "Wiring of the four layouts, the stream running upward. Pre: norm, then part, then the "
        "sum, twice. Post: part, sum, then a norm on the stream itself, twice. Parallel: one norm, "
        "attention and feed-forward side by side, one sum. Sandwich: norm, part, norm, sum, twice.")


def _draw_part(ax: Axes, steps: list[str], height: float) -> float:
    """One branch from the stream and back; returns where the stream goes on."""
    aside = steps[: steps.index("+")]
    top = height + 1.15 * len(aside) + 0.5
    ax.plot([0, 1.2, 1.2, 0.18], [height, height, top, top], color=INK, lw=1, zorder=1)
    for number, step in enumerate(aside):
        _box(ax, step, 1.2, height + 0.85 + 1.15 * number)
    ax.text(0, top, "+", ha="center", va="center", zorder=3, fontsize=10, bbox={
        "boxstyle": "circle,pad=0.12", "facecolor": palette()[7], "edgecolor": INK, "lw": 0.8})
    if steps[-1] == "n":
        top += 1.0
        _box(ax, "n", 0, top)
    return top + 0.75


def _box(ax: Axes, step: str, x: float, y: float) -> None:
    words = {"n": "norm", "a": "attention", "f": "feed-fwd", "af": "attention,\nfeed-fwd"}
    colour = {"n": palette()[1], "a": palette()[0], "f": palette()[2], "af": palette()[3]}[step]
    ax.text(x, y, words[step], ha="center", va="center", zorder=3, fontsize=7.5, color="white",
            bbox={"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": "none"})


def plot_depth(curves: Mapping[str, Sequence[float]], predicted: Sequence[float]
               ) -> tuple[Figure, str]:
    """Size of the stream after each part, and the square-root law."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.0))
    ax.plot(range(len(predicted)), predicted, ":", color=INK, lw=1.2, label="prediction")
    for marker, (name, sizes) in zip("os", curves.items(), strict=False):
        ax.plot(range(len(sizes)), sizes, marker, ms=3, label=name)
    ax.set(xlabel="parts that have written", ylabel="size of the stream (RMS)", ylim=(0, None))
    ax.legend()
    return figure, "Size of the residual stream against the parts that wrote to it. " + " ".join(
        f"{name}: from {sizes[0]:.2f} to {sizes[-1]:.2f}." for name, sizes in curves.items())


def plot_rates(results: Mapping[str, Mapping[float, Sequence[float]]], blind: float
               ) -> tuple[Figure, str]:
    """Held-out loss against the learning rate, one line per layout through its seeds' means."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    said = []
    for colour, marker, (name, by_rate) in zip(palette(), "osD^", results.items(), strict=False):
        rates = sorted(by_rate)
        means = [sum(by_rate[rate]) / len(by_rate[rate]) for rate in rates]
        ax.semilogx(rates, means, marker + "-", color=colour, label=name, ms=5)
        for rate in rates:
            ax.plot([rate] * len(by_rate[rate]), by_rate[rate], ".", color=colour, ms=4, alpha=0.6)
        said.append(f"{name} " + ", ".join(f"{m:.2f}" for m in means))
    ax.axhline(blind, color=INK, ls=":", lw=1)
    ax.text(rates[0], blind, "counting bytes alone", va="bottom", fontsize=9)
    ax.set(xlabel="learning rate", ylabel="bits per byte, held-out text")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, (f"Bits per byte at learning rates {', '.join(f'{r:g}' for r in rates)}: "
                    f"{'; '.join(said)}. Counting bytes alone gives {blind:.2f}.")


def plot_load(loads: Mapping[str, Sequence[Sequence[float]]]) -> tuple[Figure, str]:
    """What each expert gets, busiest first: a bar for the mean of the runs, a dot for each."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(loads), figsize=(7.2, 2.8), sharey=True)
    said = []
    for colour, ax, (name, runs) in zip(palette(), axes, loads.items(), strict=False):
        ordered = [sorted(run, reverse=True) for run in runs]
        means = [sum(values) / len(values) for values in zip(*ordered, strict=True)]
        ax.bar(range(1, len(means) + 1), means, color=colour)
        for run in ordered:
            ax.plot(range(1, len(run) + 1), run, ".", color=INK, ms=3)
        ax.axhline(1 / len(means), color=INK, ls=":", lw=1)
        ax.set(title=name, xlabel="expert, busiest first", xticks=range(1, len(means) + 1))
        said.append(f"{name}: busiest {means[0]:.0%}, idlest {means[-1]:.1%}")
    axes[0].set_ylabel("share of the choices")
    return figure, f"Router load over {len(means)} experts. {'. '.join(said)}."


def parts_still(configs: Mapping[str, ModelConfig]) -> str:
    """Shares of the parameters as stacked bars: what stands where scripts are off."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 0.45 * len(configs) + 1.2))
    said = []
    for row, (name, config) in enumerate(configs.items()):
        parts = count_parameters(config)
        total, left = sum(parts.values()), 0.0
        for colour, (part, count) in zip(palette(), parts.items(), strict=False):
            label = part.replace("_", " ") if row == 0 else None
            ax.barh(row, count / total, left=left, color=colour, label=label)
            left += count / total
        said.append(f"{name} {total:,}, feed-forward {parts['feedforward'] / total:.0%}")
    ax.set(yticks=range(len(configs)), yticklabels=list(configs), xlabel="share of the parameters")
    ax.invert_yaxis()
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    svg = figure_svg(figure, f"Parameters by part: {'; '.join(said)}.")
    plt.close(figure)
    return svg


def live_data(presets: Mapping[str, ModelConfig], start: str) -> dict:
    """What the living figure `parameters` is fed with: any presets, and the one it opens with."""
    return {"start": start, "presets": {
        name: {field: asdict(config)[field] for field in LIVE_FIELDS}
        for name, config in presets.items()}}


Runs = Mapping[str, Sequence[float]]


def compare_family(family: Runs) -> list[Comparison]:
    """The kinds of feed-forward part that the chapter holds against each other."""
    return comparisons(family, PAIRS, unit=BITS)


def compare_layouts(layouts: Mapping[str, Mapping], rate: float | str) -> list[Comparison]:
    """Each layout against pre-norm at one learning rate."""
    return comparisons({name: found[rate] for name, found in layouts.items()}, against="pre",
                       unit=BITS)


def compare_experts(scores: Runs) -> list[Comparison]:
    """Experts against the dense part, and what the balance loss costs."""
    pairs = [("with balance loss", "dense"), ("with balance loss", "no balance loss")]
    return comparisons(scores, pairs, unit=BITS)


def survived(layouts: Mapping[str, Mapping], blind: float) -> str:
    """For each layout at how many rates every run beat a model that only counts bytes."""
    return ", ".join(f"{name} {sum(max(runs) < blind for runs in found.values())}"
                     for name, found in layouts.items())


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    spread = {name: mean_and_spread(values) for name, values in numbers["family"].items()}
    busiest = {name: sum(map(max, runs)) / len(runs) for name, runs in numbers["loads"].items()}
    told = [f"{name} {mean:.2f} ± {half:.2f}" for name, (mean, half) in spread.items()]
    family = {(one.name, one.other): one for one in compare_family(numbers["family"])}
    return [
        f"Bits per byte at equal parameters: {', '.join(told)}.",
        f"{family['SwiGLU', 'GELU']}; {family['ReLU²', 'GELU']}.",
        f"Of {len(numbers['layouts']['pre'])} learning rates every seed came below byte counts: "
        f"{survived(numbers['layouts'], numbers['blind'])}.",
        f"Experts {compare_experts(numbers['experts'])[0]}; the busiest of eight gets "
        f"{busiest['no balance loss']:.0%} without the loss and "
        f"{busiest['with balance loss']:.0%} with it."]


def summary_lines(numbers: Mapping) -> list[str]:
    """Those lines of the Summary that hold a result of this run."""
    experts = compare_experts(numbers["experts"])[0]
    return [f"Rates of {len(numbers['layouts']['pre'])} at which every seed came below byte counts "
            f"in these few steps: {survived(numbers['layouts'], numbers['blind'])}.",
            "Experts buy parameters without operations; watch their load, which a second loss "
            f"evens. Here, {experts.name} against {experts.other}: {experts.word}."]
