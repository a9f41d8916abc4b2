"""The drawing behind chapter 06b's figures: each function returns a figure and its alt text.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from scratchbook.data.documents import Document
from scratchbook.evaluation.comparing import mean_and_spread, verdict
from scratchbook.teaching.figures import INK, figure_svg, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_pipeline(stages: Mapping[str, Sequence[Document]], tokens: float
                  ) -> tuple[Figure, str]:
    """Documents and megabytes left after each step, and the megabytes of the tokens at the end."""
    rows = [(name, f"{len(found):,} documents", sum(len(d.text.encode()) for d in found) / 1e6)
            for name, found in stages.items()]
    return _plot_stages([*rows, ("tokens on disk", "of those for training", tokens)])


def _plot_stages(stages: Sequence[tuple[str, str, float]]) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    names, counts, sizes = zip(*stages, strict=True)
    figure, ax = plt.subplots(figsize=(6.4, 0.5 + 0.42 * len(stages)))
    places = range(len(stages))
    ax.barh(places, sizes, color=palette()[0])
    for place, count, size in zip(places, counts, sizes, strict=True):
        ax.text(size, place, f" {size:.2f} MB, {count}", va="center", fontsize=9)
    ax.set(xlabel="megabytes", xlim=(0, 1.6 * max(sizes)))
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    return figure, "What is left of the corpus after each step. " + "; ".join(
        f"{name}: {count}, {size:.2f} MB" for name, count, size in stages) + "."


def plot_estimates(true: Sequence[float], guessed: Sequence[float], size: int
                   ) -> tuple[Figure, str]:
    """MinHash's estimates against the true similarity, with two standard deviations around it."""
    import matplotlib.pyplot as plt

    line = np.linspace(0, 1, 101)
    spread = 2 * np.sqrt(line * (1 - line) / size)
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    ax.fill_between(line, line - spread, line + spread, color=palette()[0], alpha=0.25, lw=0,
                    label="two standard deviations, predicted")
    ax.plot(line, line, color=INK, lw=1, ls=":")
    ax.plot(true, guessed, "o", ms=4, color=palette()[1], label="pairs of texts")
    ax.set(xlabel="shared runs of five words, counted", ylabel="shared, estimated",
           xlim=(0, 1), ylim=(-0.02, 1.02))
    ax.legend(loc="upper left")
    gaps = np.abs(np.array(guessed) - np.array(true))
    inside = gaps <= 2 * np.sqrt(np.array(true) * (1 - np.array(true)) / size) + 1e-12
    return figure, (f"Estimates of {len(gaps)} pairs from {size} numbers each: the largest error "
                    f"is {gaps.max():.2f}, and {inside.mean():.0%} lie within two standard "
                    "deviations.")


def plot_bands(curves: Mapping[str, Sequence[float]], similarity: Sequence[float],
               measured: Sequence[tuple[float, float]]) -> tuple[Figure, str]:
    """The chance that two texts meet in a band, by similarity: predicted lines, measured dots."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    half = {name: similarity[int(np.argmin(np.abs(np.array(chances) - 0.5)))]
            for name, chances in curves.items()}
    for colour, (name, chances) in zip(palette(), curves.items(), strict=False):
        ax.plot(similarity, chances, color=colour)
        right = half[name] > 0.7  # its name fits on the left of it
        ax.annotate(name, (half[name], 0.5), (-12 if right else 12, 0), va="center",
                    textcoords="offset points", ha="right" if right else "left")
    x, y = zip(*measured, strict=True)
    ax.plot(x, y, "o", color=INK, ms=4)
    ax.set(xlabel="similarity of the two texts", ylabel="chance to be compared")
    return figure, ("Chance that two texts meet in a band. One half: " + ", ".join(
        f"{name} at a similarity of {place:.2f}" for name, place in half.items())
        + f". Measured, {next(iter(curves))}: " + ", ".join(
            f"{b:.2f} at {a:.2f}" for a, b in measured) + ".")


def plot_row(segments: Tensor, mask: Tensor, plain: Tensor) -> tuple[Figure, str]:
    """One packed row: who may look at whom with document masks, and without."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.5), sharey=True)
    colours = ListedColormap(["#00000000", *palette()[:6], "#888888"])
    own = (segments % 6 + 1).where(segments >= 0, 7)  # a colour for each document
    names = {"with document masks": mask, "causal mask alone": plain}
    for ax, (name, seen) in zip(axes, names.items(), strict=True):
        ax.imshow(seen * own[None, :], cmap=colours, vmin=0, vmax=7, interpolation="nearest")
        ax.set(title=name, xlabel="looked at", xticks=[], yticks=[])
    axes[0].set_ylabel("asks")
    names_of = {int(colour): "padding" if number < 0 else f"document {number + 1}"
                for colour, number in zip(own.tolist(), segments.tolist(), strict=True)}
    figure.legend(handles=[Patch(color=colours(colour / 7), label=label)
                           for colour, label in list(names_of.items())[:7]],
                  loc="lower center", ncols=4, bbox_to_anchor=(0.5, -0.06))
    counts = {name: int(seen.sum()) for name, seen in names.items()}
    documents = int(segments.max()) + 1
    return figure, (f"A row of {len(segments)} places with {documents} documents. Pairs that may "
                    "look: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
                    + ".")


def mixture_still(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Three bars, one for each unit: what the living figure shows at rest."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 1.9))
    units = list(next(iter(shares.values())))
    left = [0.0] * len(units)
    for colour, (name, row) in zip(palette(), shares.items(), strict=False):
        ax.barh(units, list(row.values()), left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, row.values(), strict=True)]
    ax.set(xlabel="share", xlim=(0, 1))
    ax.invert_yaxis()
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    alt = "Shares of a mixture by unit. " + "; ".join(
        f"{name}: " + ", ".join(f"{share:.0%} of the {unit}" for unit, share in row.items())
        for name, row in shares.items())
    svg = figure_svg(figure, alt)
    plt.close(figure)
    return svg


def plot_mixes(found: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[Figure, str]:
    """Bits per byte on each domain, one dot per seed, by the weight of the first."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    weights, told = list(found), []
    for colour, domain in zip(palette(), next(iter(found.values())), strict=False):
        means = [sum(found[w][domain]) / len(found[w][domain]) for w in weights]
        ax.plot(range(len(weights)), means, color=colour, label=f"on {domain}")
        for place, weight in enumerate(weights):
            runs = found[weight][domain]
            ax.plot([place] * len(runs), runs, "o", ms=3, color=colour)
        told.append(f"On {domain}: " + ", ".join(
            f"{mean:.2f} at weight {weight}" for mean, weight in zip(means, weights, strict=True)))
    ax.set(xlabel="weight of code; prose has 1", ylabel="bits per byte")
    ax.set_xticks(range(len(weights)), weights)
    ax.legend()
    return figure, "Bits per byte by mixture. " + ". ".join(told) + "."


def plot_contexts(found: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[Figure, str]:
    """Bits per byte against CPU seconds, one dot per run, a cross for the mean."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    told = []
    for colour, (name, runs) in zip(palette(), found.items(), strict=False):
        seconds, bits = np.array(runs).T
        ax.plot(seconds, bits, "o", color=colour, label=name)
        ax.plot(seconds.mean(), bits.mean(), "x", ms=11, color=colour)
        told.append(f"{name}: {bits.mean():.3f} bits per byte in {seconds.mean():.1f} seconds")
    ax.plot([], [], "x", ms=11, color=INK, label="mean")
    ax.set(xlabel="CPU seconds of training", ylabel="bits per byte, context 128")
    ax.set_xlim(0, 1.1 * max(s for runs in found.values() for s, _ in runs))
    ax.legend(title="context")
    return figure, "Growing and fixed contexts at equal tokens. " + "; ".join(told) + "."


def spread(values: Sequence[float]) -> str:
    """A mean with the half-width of its 95 % interval, as text."""
    mean, half = mean_and_spread(values)
    return f"{mean:.2f}\u00a0±\u00a0{half:.2f}"  # spaces at which no line breaks


def difference(first: Sequence[float], second: Sequence[float]) -> str:
    """How far `first` is from `second`, paired by seed, with its interval and the verdict."""
    mean, half = mean_and_spread([a - b for a, b in zip(first, second, strict=True)])
    mean = round(mean, 2) + 0.0  # never -0.00
    return f"{mean:+.2f}\u00a0±\u00a0{half:.2f}: {verdict(first, second)}"


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    leak, orders, masks = numbers["leak"], numbers["orders"], numbers["masks"]
    better = [name for name, bits in orders.items()
              if name != "random" and verdict(bits, orders["random"]) == "lower"]
    worse = [name for name, bits in orders.items()
             if name != "random" and verdict(bits, orders["random"]) == "higher"]
    grown, fixed = ([bits for _, bits in numbers["contexts"][plan]]
                    for plan in ("32 → 64 → 128", "128"))
    counted = "three" in numbers  # recorded by an older page: not
    copies = [f"Of {numbers['files']} files {numbers['similar']} are nearly another one. Three to "
              "one was " + ", ".join(f"{share:.0%} of the {unit}"
                                     for unit, share in numbers["three"].items()) + "."
              ] if counted else []
    return copies + [
        f"With near copies of the test set in training: {spread(leak['leaky, held out'])} bits "
        f"per byte instead of {spread(leak['clean, held out'])} "
        f"({verdict(leak['leaky, held out'], leak['clean, held out'])}); on new texts "
        f"{spread(leak['leaky, new'])} and {spread(leak['clean, new'])} "
        f"({verdict(leak['leaky, new'], leak['clean, new'])}).",
        f"Against random order, better: {', '.join(better) or 'none'}; worse: "
        f"{', '.join(worse) or 'none'}.",
        f"Growing contexts: {spread(grown)} bits, a fixed 128 {spread(fixed)} "
        f"({verdict(grown, fixed)}).",
        f"Packed without masks {spread(masks['False'])} bits, with them {spread(masks['True'])} "
        f"({verdict(masks['False'], masks['True'])})."]
