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
    said = []
    for colour, mark, (way, pairs) in zip(palette(), MARKS, overload["drawn"].items(),
                                          strict=False):
        came, whole = zip(*pairs, strict=True)
        ax.plot(came, whole, mark, ms=4, alpha=0.6, color=colour, label=way)
        said.append(f"{way}: {len(pairs)} answered, the longest wait {max(whole):.2f} s")
    ax.axhline(overload["patience"], ls=":", color="gray")
    ax.set(xlabel="when a request came, seconds", ylabel="until its answer, seconds",
           ylim=(0, None))
    ax.legend()
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
                ax.plot([count] * 2, [min(each), max(each)], color=colour, lw=1)
            said.append(f"{title}, {name}: {means[0]:.3g} with {counts[0]}, {means[-1]:.3g} with "
                        f"{counts[-1]}")
        ax.set(xscale="log", xlabel="clients", title=title, ylim=(0, None))
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
    axes[1].legend()
    figure.tight_layout()
    return figure, f"A server with 1 to {counts[-1]} clients. {'; '.join(said)}."


def plot_memory(every_ten_seconds: Sequence[float]) -> tuple[Figure, str]:
    """The server's memory while it works."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 2.4))
    ax.plot([n / 6 for n in range(len(every_ten_seconds))], every_ten_seconds)
    ax.set(xlabel="minutes", ylabel="memory, MB", ylim=(0, None))
    return figure, (f"Memory: {every_ten_seconds[0]:.0f} MB at first, {every_ten_seconds[-1]:.0f} "
                    f"at last, {max(every_ten_seconds):.0f} at most.")
