"""The drawing behind chapter 06f: each function returns a figure and its alt text.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scratchbook.distributed.pipeline import bubble_share, gpipe_schedule
from scratchbook.teaching.figures import palette
from scratchbook.training.scaling_law import power_law

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "os^DvP*X<>"


def plot_isoflop(found: Mapping[str, Any]) -> tuple[Figure, str]:
    """Loss by size at each budget, the parabola through it, and its bottom."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    said = []
    for colour, mark, row in zip(palette(), MARKS, found["minima"], strict=False):
        runs = [run for run in found["runs"] if run["budget"] == row["budget"]]
        ax.plot([run["parameters"] for run in runs], [run["loss"] for run in runs], mark, ms=4,
                color=colour, label=_power(row["budget"]))
        ax.plot(*row["curve"], color=colour, lw=1)
        ax.plot(row["size"], row["loss"], mark, ms=9, mfc="none", color=colour)
        said.append(f"{row['budget']:.0e} operations: best size {row['size']:,.0f}, loss "
                    f"{row['loss']:.3f}")
    ax.set(xscale="log", xlabel="parameters", ylabel="held-out loss, nats per byte")
    ax.legend(title="operations")
    return figure, "Loss by size at equal operations. " + "; ".join(said) + "."


def _power(number: float) -> str:
    factor, exponent = f"{number:.0e}".split("e+")
    return rf"${factor} \cdot 10^{{{int(exponent)}}}$"


def plot_ahead(found: Mapping[str, Any]) -> tuple[Figure, str]:
    """The best loss of each budget, two extrapolations to ten times more, and the run itself."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    budgets = [row["budget"] for row in found["minima"]]
    ax.plot(budgets, [row["loss"] for row in found["minima"]], "o", color="gray",
            label="best of a budget")
    target = found["target"]
    factor, exponent = power_law(budgets, [row["loss"] for row in found["minima"]])
    along = [budgets[0] * (target["budget"] / budgets[0]) ** (step / 40) for step in range(41)]
    ax.plot(along, [factor * x**exponent for x in along], "--", color="gray", lw=1,
            label="their power")
    for colour, mark, name in zip(palette(), "s^", ("by a power", "by the law"), strict=False):
        row = target[name]
        x = target["budget"] * (0.85 if mark == "s" else 1.18)
        ax.plot([x], [row["predicted"]], mark, color=colour, label=f"predicted {name}")
        ax.plot([x, x], [row["low"], row["high"]], color=colour)
    ax.plot([target["budget"]], [target["loss"]], "X", ms=9, color=palette()[6], label="measured")
    ax.set(xscale="log", xlabel="operations", ylabel="held-out loss, nats per byte")
    ax.legend()
    said = "; ".join(
        f"{name}: {target[name]['predicted']:.3f} ({target[name]['low']:.3f} to "
        f"{target[name]['high']:.3f})" for name in ("by a power", "by the law"))
    return figure, f"Loss of a run of ten times more operations: {said}; {target['loss']:.3f} came."


def plot_memory(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """Bytes that one rank holds, by stage and part; ticks are the formula's sums."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    parts = ("parameters", "gradients", "optimizer")
    for place, row in enumerate(rows):
        bottom = 0.0
        for colour, part, hatch in zip(palette(), parts, ("", "//", ".."), strict=False):
            ax.bar(place, row[part] / 1e3, bottom=bottom / 1e3, color=colour, hatch=hatch,
                   edgecolor="white", lw=0.4, label=part if place == 0 else None)
            bottom += row[part]
        ax.plot([place - 0.45, place + 0.45], [row["predicted"] / 1e3] * 2, color="gray", lw=2)
    ax.set(ylabel="kB on one rank", ylim=(0, None))
    ax.set_xticks(range(len(rows)), [row["way"] for row in rows])
    ax.legend()
    return figure, "Held by one rank: " + "; ".join(
        f"{row['way']} {sum(row[part] for part in parts) / 1e3:.0f} kB, formula "
        f"{row['predicted'] / 1e3:.0f}" for row in rows) + "."


def draw_pipeline(stages: int, counts: Sequence[int]) -> tuple[Figure, str]:
    """What each stage does when, for different numbers of micro-batches."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(counts), 1, figsize=(7.2, 1.5 * len(counts)))
    for ax, count in zip(axes, counts, strict=True):
        for stage, slots in enumerate(gpipe_schedule(stages, count)):
            for slot in slots:
                ax.barh(stage, 1, left=slot.begins, height=0.8, edgecolor="gray", lw=0.5,
                        color=palette()[int(slot.backward)])
                ax.text(slot.begins + 0.5, stage, str(slot.micro_batch), ha="center", va="center",
                        color="white", fontsize=8)
        ax.set(yticks=range(stages), ylabel="stage", title=f"{count} micro-batches: a stage waits "
               f"{bubble_share(stages, count):.0%} of the time")
        ax.invert_yaxis()
    axes[-1].set_xlabel("units of time (blue: forwards, orange: backwards)")
    figure.tight_layout()
    said = "; ".join(f"{count} micro-batches: {bubble_share(stages, count):.0%} of the time empty"
                     for count in counts)
    return figure, f"{stages} stages of a pipeline. {said}."


def parabola(sizes: Sequence[float], size: float, loss: float, bend: float
             ) -> tuple[list[float], list[float]]:
    """Points of loss + bend · (log size)² around its bottom, over the span of the sizes."""
    low, high = math.log(min(sizes)), math.log(max(sizes))
    x = [low + (high - low) * step / 40 for step in range(41)]
    return [math.exp(each) for each in x], [loss + bend * (each - math.log(size)) ** 2
                                            for each in x]
