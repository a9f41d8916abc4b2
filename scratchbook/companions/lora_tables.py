"""Tables, figures and sentences of chapter 08's recorded runs; every verdict is written by them.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING

from scratchbook.evaluation.comparing import mean_and_spread
from scratchbook.teaching.figures import palette
from scratchbook.teaching.verdicts import Comparison, comparisons

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vPX"
WORDS = {"low": "better", "high": "worse"}


def spread(values: Sequence[float]) -> str:
    """Mean and half the interval, as text."""
    return "{:.3f} ± {:.3f}".format(*mean_and_spread(values))


def against_rows(against: Mapping[str, Mapping]) -> list[dict]:
    """A row for each way: what learns, the rate and those it was chosen from, and how it ended."""
    return [{"way": way, "numbers that learn": row["trainable"],
             "rate": "none" if row["rate"] is None else
             f"{row['rate']:g} of {', '.join(row['tried'])}",
             "bits": spread(row["bits"]), "exactly right": f"{mean(row['accuracy']):.0%}",
             "CPU s": f"{mean(row['seconds']):.0f}" if row.get("seconds") else "none"}
            for way, row in against.items()]


def family_rows(family: Mapping[str, Mapping]) -> list[dict]:
    """A row for each method: its count, how it ended, and the verdict beside LoRA."""
    against = {one.name: one for one in _beside(family, "LoRA")}
    return [{"method": name, "numbers that learn": row["trainable"], "bits": spread(row["bits"]),
             "against LoRA": _words(against.get(name))} for name, row in family.items()]


def code_rows(kinds: Mapping[str, Mapping]) -> list[dict]:
    """A row for each kind of adapter; steps are those to reach plain LoRA's mean half-way."""
    rows = []
    for name, row in kinds.items():
        rows.append({"adapter": name, "numbers that learn": row["trainable"],
                     "bits": spread(row["bits"])})
        if all("steps" in other for other in kinds.values()):
            rows[-1]["steps to the mark"] = spread(row["steps"])
    return rows


def code_verdicts(kinds: Mapping[str, Mapping]) -> list[Comparison]:
    """Each kind that knows syntax beside the plain one, seed by seed."""
    return _beside(kinds, "plain")


def _beside(ways: Mapping[str, Mapping], against: str) -> list[Comparison]:
    return comparisons({name: row["bits"] for name, row in ways.items()}, against=against, **WORDS)


def _words(one: Comparison | None) -> str:
    return "" if one is None else f"{one.word} ({one.gap})" if one.gap else one.word


def memory_rows(rows: Sequence[Mapping]) -> list[dict]:
    """Bytes as megabytes, and how far the formula is from what was measured."""
    shown = []
    for row in rows:
        line = {"way": row["way"]}
        line |= {name: f"{row[name] / 1e6:,.2f}" for name in row
                 if name not in ("way", "ms a step")}
        off = row["saved, formula"] / row["saved, measured"] - 1
        shown.append(line | {"formula off by": f"{off:+.1%}", "ms a step":
                             f"{row['ms a step']:,.0f}"})
    return shown


# --- rank and targets --------------------------------------------------------------------------


def cells(grid: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[tuple[str, str], list]:
    """(targets, rank): the runs of that cell."""
    return {(targets, rank): list(values) for targets, line in grid.items()
            for rank, values in line.items()}


def plot_grid(grid: Mapping[str, Mapping[str, Sequence[float]]],
              counts: Mapping[str, Mapping[str, int]], measure: str) -> tuple[Figure, str]:
    """A heat map: targets by rank; each cell has its mean and how many numbers learn."""
    import matplotlib.pyplot as plt

    names, ranks = list(grid), list(next(iter(grid.values())))
    values = [[mean(grid[name][rank]) for rank in ranks] for name in names]
    figure, ax = plt.subplots(figsize=(6.4, 0.8 + 0.62 * len(names)), layout="constrained")
    image = ax.imshow(values, cmap="viridis_r", aspect="auto")
    low, high = min(map(min, values)), max(map(max, values))
    for y, name in enumerate(names):
        for x, rank in enumerate(ranks):
            dark = values[y][x] > (low + high) / 2
            ax.text(x, y, f"{values[y][x]:.3f}\n{counts[name][rank] / 1000:,.0f} k", ha="center",
                    va="center", fontsize=8, color="black" if not dark else "white")
    ax.set_xticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    figure.colorbar(image, label=measure)
    words = [f"{name}, rank {rank}: {value:.3f}" for name, line in zip(names, values, strict=True)
             for rank, value in zip(ranks, line, strict=True)]
    return figure, f"{measure}, by targets and rank. " + "; ".join(words) + "."


def grid_rows(grid: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict]:
    """The best cell beside others: one rank lower, other targets, the smallest of all."""
    found = cells(grid)
    best = min(found, key=lambda cell: mean(found[cell]))
    ranks = list(next(iter(grid.values())))
    others = [(best[0], rank) for rank in ranks] + [(name, best[1]) for name in grid]
    rows = []
    for other in dict.fromkeys(cell for cell in others if cell != best):
        one = Comparison(f"{best[0]}, rank {best[1]}", f"{other[0]}, rank {other[1]}",
                         found[best], found[other], **WORDS)
        rows.append(one.row())
    return rows


# --- how many examples, and what is forgotten --------------------------------------------------


def plot_sizes(sizes: Mapping[str, Mapping[str, Sequence[float]]], measure: str
               ) -> tuple[Figure, str]:
    """Bits by the number of examples, with the interval of each mean."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    words = []
    for colour, marker, (way, line) in zip(palette(), MARKERS, sizes.items(), strict=False):
        found = {int(count): mean_and_spread(values) for count, values in line.items()}
        ax.errorbar(list(found), [middle for middle, _ in found.values()],
                    yerr=[half for _, half in found.values()], marker=marker, ms=4, capsize=3,
                    color=colour, label=way)
        words.append(f"{way}: " + ", ".join(f"{middle:.3f} with {count}"
                                            for count, (middle, _) in found.items()))
    counts = sorted({int(count) for line in sizes.values() for count in line})
    ax.set(xscale="log", xlabel="examples learned from", ylabel=measure)
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.legend()
    return figure, f"{measure} by the number of examples. " + "; ".join(words) + "."


def plot_forgetting(forgetting: Mapping, measure: str) -> tuple[Figure, str]:
    """For each way a map: what was learned last (rows), what is measured (columns)."""
    import matplotlib.pyplot as plt

    tasks, ways = forgetting["tasks"], forgetting["ways"]
    means = {way: [[mean(cell) for cell in row] for row in rows] for way, rows in ways.items()}
    most = max(abs(value) for rows in means.values() for row in rows for value in row) or 1.0
    lines = (len(ways) + 1) // 2
    figure, axes = plt.subplots(lines, 2, figsize=(6.4, 1.9 * lines), sharex=True, sharey=True,
                                layout="constrained", squeeze=False)
    words = []
    for ax, (way, rows) in zip(axes.flat, means.items(), strict=False):
        image = ax.imshow(rows, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                ax.text(x, y, f"{value:+.2f}", ha="center", va="center", fontsize=7,
                        color="white" if abs(value) > 0.55 * most else "black")
        ax.set_xticks(range(len(tasks)), tasks, fontsize=8)
        ax.set_yticks(range(len(rows)), [f"after {name}" for name in tasks[-len(rows):]],
                      fontsize=8)
        ax.tick_params(length=0)
        ax.set_title(way, fontsize=9)
        words.append(f"{way}, after all of it: " + ", ".join(
            f"{task} {value:+.2f}" for task, value in zip(tasks, rows[-1], strict=True)))
    figure.colorbar(image, ax=axes, label="change", shrink=0.8)
    return figure, f"Change of {measure} from the base. " + "; ".join(words) + "."


def forgetting_verdicts(forgetting: Mapping) -> list[str]:
    """What the base's own text lost after all tasks: each way beside full, and the 2 % mark."""
    last = {way: rows[-1][0] for way, rows in forgetting["ways"].items()}
    lines = [str(one) for one in comparisons(last, against="full", low="forgets less",
                                             high="forgets more")]
    base = forgetting.get("base bits")
    for way, values in last.items() if base else ():
        share = mean(values) / base
        lines.append(f"{way}: the base's own text moves by {share:+.1%}, 2 % were asked for: "
                     + ("met" if share <= 0.02 else "missed"))
    return lines


# --- the end -----------------------------------------------------------------------------------


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    rank = numbers["lora_rank"]
    return [
        f"{rank} of 256 directions held {numbers['held']['the change']:.0%} of the change and "
        f"{numbers['held']['random']:.0%} of a random matrix; they gave back "
        f"{numbers['regained']['strongest']:.0%} of the learning, as many random ones "
        f"{numbers['regained']['random']:.0%}.",
        "From rank 1 to 64 the first step grew " + ", ".join(
            f"times {line[64] / line[1]:.2g} with scale {rule}"
            for rule, line in numbers["first_step"].items()) + ".",
        "Merging lost " + ", ".join(f"{share:.1e} of the change in {kind}"
                                    for kind, share in numbers["lost"].items()) + "."]


def run_findings(runs: Mapping) -> list[str]:
    """What the recorded comparisons say, in sentences that they write."""
    return [
        *_sentences(one for one in _beside(runs["against"], "full") if one.name == "LoRA"),
        *_sentences(_beside(runs["family"], "LoRA")),
        *_sentences(code_verdicts(runs["code_aware"])),
        *(f"{line}." for line in forgetting_verdicts(runs["forgetting"]))]


def summary_lines(runs: Mapping) -> list[str]:
    """Those lines of the Summary that hold a verdict of the recorded runs."""
    lora = next(one for one in _beside(runs["against"], "full") if one.name == "LoRA")
    return [f"Recorded here: {lora}.",
            "Of syntax: " + "; ".join(map(str, code_verdicts(runs["code_aware"]))) + ".",
            "Of the base's own text after two tasks: "
            + "; ".join(forgetting_verdicts(runs["forgetting"])[:3]) + "."]


def _sentences(found: Iterable[Comparison]) -> list[str]:
    return [f"{one}." for one in found]
