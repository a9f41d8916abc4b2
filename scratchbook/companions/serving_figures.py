"""The drawing behind chapter 07c: each function returns a figure and its alt text.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scratchbook.companions.serving_findings import at, levels, rates
from scratchbook.teaching.figures import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "os^DvP*X"


def plot_waits(waits: Mapping[str, Sequence[float]]) -> tuple[Figure, str]:
    """The longest wait of a second client, one point for each round."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 2.6))
    for place, (colour, values) in enumerate(zip(palette(), waits.values(), strict=False)):
        ax.plot(values, [place] * len(values), "o", color=colour, alpha=0.7)
    ax.set(xscale="log", xlabel="longest wait for \"ok\", milliseconds")
    ax.set_yticks(range(len(waits)), list(waits))
    ax.set_ylim(len(waits) - 0.5, -0.5)
    said = "; ".join(f"{name}: {min(values):.3g} to {max(values):.3g} ms"
                     for name, values in waits.items())
    return figure, f"The longest wait of a second client in each of the rounds. {said}."


def plot_overload(overload: Mapping[str, Any]) -> tuple[Figure, str]:
    """When each request came and how long it took, for each way of receiving too many."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    said, drawn = [], overload["drawn"]
    lowest = min(whole for each in drawn.values() for _, answered, whole in each if answered) / 2
    for colour, mark, (way, each) in zip(palette(), MARKS, drawn.items(), strict=False):
        came, whole = zip(*((at, took) for at, answered, took in each if answered), strict=True)
        ax.plot(came, whole, mark, ms=3.5, alpha=0.6, color=colour, label=way)
        away = [at for at, answered, _ in each if not answered]
        ax.plot(away, [lowest] * len(away), "x", ms=4, alpha=0.6, color=colour)
        said.append(f"{way}: {len(came)} answered, {len(away)} sent away, the longest wait "
                    f"{max(whole):.2f} s")
    ax.axhline(overload["patience"], ls=":", color="gray")
    ax.set(xlabel="when a request came, seconds (cross: sent away)", yscale="log",
           ylabel="until its answer, seconds")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure, f"Requests of one round under overload. {'; '.join(said)}."


def plot_load(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """Throughput (left) and latency (middle, right) against clients; bars from round to round."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.2))
    counts, said = levels(rows), []
    panels = (("tokens a second", {"throughput": lambda n: rates(rows, n)}, 1),
              ("first token, ms", {p: lambda n, p=p: at(rows, n, f"first_{p}")
                                   for p in ("p50", "p95", "p99")}, 1000),
              ("whole answer, ms", {p: lambda n, p=p: at(rows, n, f"whole_{p}")
                                    for p in ("p50", "p95", "p99")}, 1000))
    for ax, (title, curves, times) in zip(axes, panels, strict=True):
        for colour, mark, (name, values) in zip(palette(), MARKS, curves.items(), strict=False):
            found = [[times * each for each in values(n)] for n in counts]
            means = [sum(each) / len(each) for each in found]
            ax.plot(counts, means, mark + "-", ms=4, color=colour, label=name)
            for count, each in zip(counts, found, strict=True):
                if name not in ("p95", "p99"):  # three bars would lie upon each other
                    ax.plot([count] * 2, [min(each), max(each)], color=colour, lw=1)
            said.append(f"{title}, {name}: {means[0]:.3g} with {counts[0]}, {means[-1]:.3g} with "
                        f"{counts[-1]}")
        ax.set(xscale="log", xlabel="clients", title=title, ylim=(0, None))
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
    axes[1].legend()
    figure.tight_layout()
    return figure, f"A server with 1 to {counts[-1]} clients. {'; '.join(said)}."


def draw_path() -> tuple[Figure, str]:
    """Loop and thread side by side, and what goes between them, in four steps."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.2, 2.9))
    boxes = {"client": (0, 1), "loop": (2.2, 1), "inbox": (4.4, 1.7), "thread": (6.6, 1),
             "queue of\nthe answer": (4.4, 0.3)}
    for colour, (name, (x, y)) in zip(palette(), boxes.items(), strict=False):
        ax.text(x, y, name, ha="center", va="center",
                bbox={"boxstyle": "round,pad=0.6", "fc": "none", "ec": colour, "lw": 1.6})
    steps = [("1  submit", (2.6, 1.15), (3.9, 1.65), (3.15, 1.55), "right"),
             ("2  _work", (4.9, 1.65), (6.05, 1.2), (5.6, 1.55), "left"),
             ("3  _step, then _deliver", (6.05, 0.8), (5.25, 0.42), (5.85, 0.5), "left"),
             ("4  awaited", (3.5, 0.42), (2.6, 0.85), (3.0, 0.5), "right")]
    for label, start, end, place, side in steps:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "gray", "lw": 1.4})
        ax.text(*place, label, ha=side, va="center", fontsize=9)
    ax.annotate("", (1.75, 1), (0.5, 1), arrowprops={"arrowstyle": "<->", "color": "gray"})
    ax.text(1.1, 1.12, "socket", ha="center", fontsize=9)
    ax.set(xlim=(-0.6, 8.2), ylim=(-0.1, 2.1))
    ax.axis("off")
    return figure, ("A request comes from the client through a socket to the loop; submit puts it "
                    "into the inbox; the thread's _work takes it out; _step asks the engine, and "
                    "_deliver puts each event into the queue of its answer, for which the loop "
                    "waits.")
