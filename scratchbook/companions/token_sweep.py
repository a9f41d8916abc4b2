"""The vocabulary sweep of chapter 01: runs by size and budget, and what they say.

Chapter:  chapters/01_tokenization.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from scratchbook.companions.token_figures import percent
from scratchbook.evaluation.comparing import verdict
from scratchbook.teaching.figures import palette, show, table

FAR = 8  # tokens that the sweep's models look back


class Sweep:
    """The runs of the vocabulary sweep, by size and budget."""

    def __init__(self, runs: Sequence[Mapping[str, float]]) -> None:
        self.runs = runs
        self.sizes = sorted({run["vocab_size"] for run in runs})
        self.budgets = sorted({run["budget"] for run in runs})

    def values(self, name: str, size: int, budget: float | None = None) -> list[float]:
        """One number of every seed's run with this size, at this budget (the largest if None)."""
        budget = self.budgets[-1] if budget is None else budget
        return [run[name] for run in self.runs
                if run["vocab_size"] == size and run["budget"] == budget]

    def verdict(self, budget: float) -> str:
        """Which size has the fewest bits per byte, if it is clearly better than the next."""
        def bits(size: int) -> list[float]:
            return self.values("bits_per_byte", size, budget)

        first, second = sorted(self.sizes, key=lambda size: np.mean(bits(size)))[:2]
        name = f"at {budget / 1e9:,.0f} GFLOP"
        if len(bits(first)) < 3:
            return f"{name}: one seed names no winner"
        if verdict(bits(first), bits(second)) != "lower":
            return f"{name}: {first:,} and {second:,} tokens, no clear difference"
        return f"{name}: {first:,} tokens, {np.mean(bits(first)):.3f} bits per byte"

    @property
    def verdicts(self) -> list[str]:
        """The verdict for each budget."""
        return [self.verdict(budget) for budget in self.budgets]

    @property
    def gains(self) -> list[str]:
        """What the largest budget saves against the smallest, at both ends of the sweep."""
        low, high = self.budgets[0], self.budgets[-1]
        saved = {size: np.mean(self.values("bits_per_byte", size, low))
                 - np.mean(self.values("bits_per_byte", size, high)) for size in self.sizes}
        small, large = self.sizes[0], self.sizes[-1]
        return [f"{high / low:.0f} times the compute saves {saved[small]:.2f} bits per byte at "
                f"{small:,} tokens, {saved[large]:.2f} at {large:,}"] if high > low else []


SWEEP_COLUMNS = {
    "vocabulary": "vocab_size", "bytes/token": "bytes_per_token",
    "in embeddings": "embedding_share", "perplexity": "perplexity",
    "bits/byte": "bits_per_byte", "s/MB": "seconds_per_MB"}


def sweep_table(runs: Sequence[Mapping[str, float]]) -> None:
    """The first seed's runs at the smallest budget, as measured by the page itself."""
    first = min(runs, key=lambda run: (run["budget"], run["seed"]))
    table([{name: percent(name, run[key]) for name, key in SWEEP_COLUMNS.items()}
           for run in runs if (run["budget"], run["seed"]) == (first["budget"], first["seed"])],
          caption=f"{first['budget'] / 1e9:,.0f} GFLOP each, measured here and now")


def sweep_panels(runs: Sequence[Mapping[str, float]]) -> Sweep:
    """Four quantities against the size of the vocabulary, and which size does best."""
    sweep = Sweep(runs)
    print("fewest bits per byte", *sweep.verdicts, *sweep.gains, sep="\n  ")
    fig, axes = plt.subplots(2, 2, figsize=(6.4, 5.0), layout="constrained")
    names = {"bytes_per_token": "bytes per token", "bits_per_byte": "bits per byte, held out",
             "embedding_share": "weights in embeddings (%)",
             "seconds_per_MB": "CPU seconds per MB of text"}
    for ax, (name, label) in zip(axes.flat, names.items(), strict=True):
        budgets = sweep.budgets if name == "bits_per_byte" else sweep.budgets[-1:]
        for budget in budgets:
            colour = palette()[sweep.budgets.index(budget)]
            scale = 100 if name == "embedding_share" else 1
            found = [[scale * v for v in sweep.values(name, size, budget)] for size in sweep.sizes]
            middle = np.array([np.median(v) for v in found])
            low, high = (np.array([pick(v) for v in found]) for pick in (min, max))
            ax.errorbar(sweep.sizes, middle, yerr=[middle - low, high - middle], fmt="o-", ms=4,
                        capsize=3, color=colour, label=f"{budget / 1e9:,.0f} GFLOP")
        if len(budgets) > 1:
            ax.legend()
        _log_sizes(ax, sweep.sizes)
        ax.set_ylabel(label)
        ax.set_ylim(bottom=None if name == "bits_per_byte" else 0)
    said = "; ".join(f"{size:,}: {sweep.values('bytes_per_token', size)[0]:.2f} bytes per token, "
                     f"{np.mean(sweep.values('bits_per_byte', size)):.3f} bits per byte"
                     for size in sweep.sizes)
    show(fig, f"Four quantities against vocabulary size. {said}. Fewest bits per byte "
         f"{'; '.join(sweep.verdicts)}.",
         "Dots are medians; whiskers reach from the lowest to the highest seed.")
    return sweep


def _log_sizes(ax: plt.Axes, sizes: Sequence[int]) -> None:
    ticks = sizes[:: max(1, len(sizes) // 3)]
    ax.set(xscale="log", xlabel="vocabulary (tokens)")
    ax.set_xticks(ticks, [f"{size:,}" for size in ticks])
    ax.minorticks_off()
    ax.grid(True)


def windows_table(far: Sweep, runs: Sequence[Mapping], kept: Mapping | None = None) -> None:
    """Bits per byte with windows of equal length in tokens and in bytes, and who is better.

    `kept` holds the recorded runs, shown in place of those just made.

    The runs are paired with those of `far` by size, budget and seed. The smallest size of `far`
    has a token for each byte: its windows are of equal length either way.
    """
    near = Sweep((kept or {"runs": runs})["runs"])
    table([row for budget in near.budgets for row in _windows(far, near, budget)],
          caption="Bits per byte, windows of 8 tokens and windows of about 8 bytes")
    print(*order_lines(far, near), sep="\n")


def _windows(far: Sweep, near: Sweep, budget: float) -> list[dict]:
    rows = []
    for size in near.sizes:
        tokens, equal = (sweep.values("bits_per_byte", size, budget) for sweep in (far, near))
        context = near.values("context", size, budget)[0]
        said = "one seed" if min(len(tokens), len(equal)) < 3 else verdict(
            equal, tokens, "the shorter window is better", "the longer window is better")
        rows.append({"GFLOP": f"{budget / 1e9:,.0f}", "vocabulary": f"{size:,}",
                     f"{FAR} tokens": f"{np.mean(tokens):.3f}" if tokens else "",
                     "8 bytes": f"{np.mean(equal):.3f} ({context} tokens)", "verdict": said})
    return rows


def order_lines(far: Sweep, near: Sweep) -> list[str]:
    """Whether each larger size still has fewer bits per byte when all see the same bytes."""
    lines, sizes = [], [far.sizes[0], *near.sizes]
    for budget in near.budgets:
        bits = [far.values("bits_per_byte", sizes[0], budget),
                *(near.values("bits_per_byte", size, budget) for size in near.sizes)]
        words = ["one seed" if min(len(large), len(small)) < 3 else
                 verdict(large, small, "better", "worse") for small, large in pairwise(bits)]
        steps = [f"{large:,} against {small:,} tokens: {word}"
                 for (small, large), word in zip(pairwise(sizes), words, strict=True)]
        lines.append(f"8 bytes for all, {budget / 1e9:,.0f} GFLOP: {'; '.join(steps)}")
    return lines


def findings(numbers: Mapping) -> list[str]:
    """What a run of the sweep found, in sentences that its numbers write."""
    sweep = Sweep(numbers["runs"])
    small, large = sweep.sizes[0], sweep.sizes[-1]
    share = 100 * sweep.values("embedding_share", large)[0]
    return [f"A vocabulary {large // small} times as large as the bytes alone covers "
            f"{sweep.values('bytes_per_token', large)[0]:.1f} bytes per token; its embedding table "
            f"is {share:.0f} % of the model.",
            f"Fewest bits per byte: {'; '.join(sweep.verdicts)}."]
