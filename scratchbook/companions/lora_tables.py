"""Tables, figures and sentences of chapter 08's recorded runs; every verdict is written by them.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING

from scratchbook.evaluation.comparing import bound_verdict, mean_and_spread
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


def hour_line(against: Mapping[str, Mapping], limit: float = 3600) -> str:
    """Whether LoRA's training kept within an hour of one core."""
    spent = against["LoRA"]["seconds"]
    return (f"LoRA's training took {mean(spent):.0f} CPU seconds, an hour was the limit: "
            + bound_verdict(spent, at_most=limit))


def edge(tried: Mapping[str, float], rate: float) -> str:
    """A rate and those it was chosen from; whether it lies at their end."""
    rates = sorted(map(float, tried))
    end = {rates[0]: ", the lowest", rates[-1]: ", the highest"}.get(rate, "")
    return f"{rate:g} of {', '.join(f'{one:g}' for one in rates)}{end}"


def family_rows(family: Mapping[str, Mapping]) -> list[dict]:
    """A row for each method: its count and rate, how it ended, and the verdict beside LoRA."""
    against = {one.name: one for one in _beside(family, "LoRA")}
    return [{"method": name, "numbers that learn": row["trainable"],
             "rate": edge(row["tried"], row["rate"]), "bits": spread(row["bits"]),
             "against LoRA": _words(against.get(name))} for name, row in family.items()]


def hint_line(family: Mapping[str, Mapping], near: float = 0.01) -> str:
    """Which intervals beside LoRA have an end within `near` of zero: hints at the most."""
    found = []
    for name in (name for name in family if name != "LoRA"):
        pairs = zip(family[name]["bits"], family["LoRA"]["bits"], strict=True)
        middle, half = mean_and_spread([own - other for own, other in pairs])
        if min(abs(middle - half), abs(middle + half)) <= near:
            found.append(name)
    return (f"ends within {near:g} of zero: {'; '.join(found) or 'none'} "
            f"of {len(family) - 1} intervals\nnone was tried on fresh seeds")


def again_rows(again: Mapping[str, Mapping]) -> list[dict]:
    """Each adapter that knows syntax beside the plain one, and beside its own classes drawn."""
    pairs = [(name, other) for name in again if name != "plain" and "drawn" not in name
             for other in ("plain", f"{name}, classes drawn")]
    pairs += [(name, "plain") for name in again if "drawn" in name]
    return [one.row() for one in comparisons({name: row["bits"] for name, row in again.items()},
                                             pairs, **WORDS)]


def code_rows(kinds: Mapping[str, Mapping]) -> list[dict]:
    """A row for each kind of adapter; steps are those to reach plain LoRA's mean half-way."""
    rows = []
    for name, row in kinds.items():
        rows.append({"adapter": name, "numbers that learn": row["trainable"],
                     "bits": spread(row["bits"])})
        if all("steps" in other for other in kinds.values()):
            rows[-1]["steps to the mark"] = "{:.1f} ± {:.1f}".format(*mean_and_spread(row["steps"]))
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
        shown.append(line | {"formula off by": f"{off:+.1%}", "ms forward and backward":
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
    """The best cell beside its row and its column; in other rows the two highest ranks."""
    found = cells(grid)
    best = min(found, key=lambda cell: mean(found[cell]))
    ranks = list(next(iter(grid.values())))
    others = [(best[0], rank) for rank in ranks] + [(name, best[1]) for name in grid]
    pairs = [(best, other) for other in dict.fromkeys(others) if other != best]
    pairs += [((name, ranks[-1]), (name, ranks[-2])) for name in grid if name != best[0]]
    return [Comparison(*("{}, rank {}".format(*cell) for cell in pair),
                       *(found[cell] for cell in pair), **WORDS).row() for pair in pairs]


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
    """What the base's own text lost after all tasks, like beside like, and the 2 % mark.

    LoRA stands beside full fine-tuning, both without and both with replay; each replay beside
    its own way without.
    """
    last = {way: rows[-1][0] for way, rows in forgetting["ways"].items()}
    pairs = [("LoRA", "full"), ("LoRA, replay", "full, replay"), ("LoRA, replay", "LoRA"),
             ("full, replay", "full")]
    lines = [str(one) for one in comparisons(last, pairs, low="forgets less",
                                             high="forgets more")]
    base = forgetting.get("base bits")
    return lines + ([kept_line(way, values, base) for way, values in last.items()] if base else [])


def kept_line(way: str, changes: Sequence[float], base: float, limit: float = 0.02) -> str:
    """By which share the base's own text became longer, and whether that is within the limit."""
    shares = [change / base for change in changes]
    return (f"{way}: the base's own text moves by {mean(shares):+.1%}, {limit:.0%} were asked for: "
            + bound_verdict(shares, at_most=limit))


def plot_rates(found: Mapping) -> tuple[Figure, str]:
    """The base's own text at the mark, by the steps to it; a point for each rate that got there."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.0, 3.2), layout="constrained")
    words = []
    for colour, marker, (way, tried) in zip(palette(), MARKERS, found["tried"].items(),
                                            strict=False):
        there = [(float(lr), run["step"], 100 * (run["text"] / found["base bits"] - 1))
                 for lr, run in tried.items() if run["reached"]]
        ax.plot([step for _, step, _ in there], [lost for *_, lost in there], marker=marker, ms=5,
                color=colour, label=way)
        for lr, step, lost in there:
            ax.annotate(f"{lr:g}", (step, lost), textcoords="offset points", xytext=(5, 4),
                        fontsize=8)
        words.append(f"{way}: " + ", ".join(f"{lost:+.1f} % at {lr:g} in {step} steps"
                                            for lr, step, lost in there))
    ax.margins(x=0.15, y=0.15)
    ax.set(xlabel="steps to the mark", ylabel="own text, change in %")
    ax.set_ylim(bottom=0)
    ax.legend()
    return figure, "The base's own text where the task is at the mark. " + "; ".join(words) + "."


def rate_lines(found: Mapping) -> list[str]:
    """What the lowest and the highest rate cost that brought the task to the mark; one seed."""
    lines = []
    for way, tried in found["tried"].items():
        lost = {float(lr): run["text"] / found["base bits"] - 1 for lr, run in tried.items()
                if run["reached"]}
        scores = [run["task"] for run in tried.values() if run["reached"]]
        low, high = min(lost), max(lost)
        lines.append(f"{way}, near the same score ({min(scores):.2f} to {max(scores):.2f} bits): "
                     f"own text {lost[low]:+.1%} at rate {low:g}, "
                     f"{lost[high]:+.1%} at {high:g}")
    return lines


def first_task_lines(forgetting: Mapping) -> list[str]:
    """After the first task, without and with replay: who forgot less, who scored, the 2 %."""
    ways, base, lines = forgetting["ways"], forgetting["base bits"], []
    for way, other in (("LoRA", "full"), ("LoRA, replay", "full, replay")):
        (text, task), (text_other, task_other) = (ways[name][0][:2] for name in (way, other))
        score = Comparison(way, other, task, task_other, **WORDS)
        kept = Comparison(way, other, text, text_other, low="forgets less", high="forgets more")
        lines += [f"{kept}; the task itself: {score.word}",
                  kept_line(way, text, base), kept_line(other, text_other, base)]
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


def size_verdicts(sizes: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """LoRA beside full fine-tuning at the fewest and at the most examples of both."""
    counts = [count for count in sizes["LoRA"] if count in sizes["full"]]
    return [f"{count} examples, " + str(Comparison(
        "LoRA", "full", sizes["LoRA"][count], sizes["full"][count], **WORDS))
        for count in (counts[0], counts[-1])]


def older_line(runs: Mapping) -> str:
    """Which of the experiments are of an earlier recording, and of which."""
    times: dict[str, list[str]] = {}
    for name, when in runs.get("older", {}).items():
        times.setdefault(when, []).append(name.replace("_", " "))
    return "; ".join(f"of {when} are {', '.join(names)}" for when, names in times.items())


def run_findings(runs: Mapping) -> list[str]:
    """What the recorded comparisons say, in sentences that they write."""
    again = [f"Fresh seeds, classes drawn once, {row['compared']}: {row['verdict']} "
             f"({row['difference']})." for row in again_rows(runs["code_again"])]
    first, last = first_task_lines(runs["forgetting"]), forgetting_verdicts(runs["forgetting"])
    return [
        *_sentences(one for one in _beside(runs["against"], "full") if one.name == "LoRA"),
        f"{hour_line(runs['against'])}.", *(f"{line}." for line in size_verdicts(runs["sizes"])),
        *(f"A hint, three seeds: {one}" for one in _sentences(_beside(runs["family"], "LoRA"))),
        *_sentences(code_verdicts(runs["code_aware"])), *again,
        *(f"After one task, {line}." for line in first),
        *(f"After two tasks, {line}." for line in last)]


def summary_lines(runs: Mapping) -> list[str]:
    """Those lines of the Summary that hold a verdict of the recorded runs."""
    lora = next(one for one in _beside(runs["against"], "full") if one.name == "LoRA")
    own = [row for row in again_rows(runs["code_again"])
           if not row["compared"].endswith("drawn against plain")]
    fewest = size_verdicts(runs["sizes"])[0].replace("LoRA against full: ", "").replace(",", ":")
    last = forgetting_verdicts(runs["forgetting"])[:2]
    return [f"Recorded here: {str(lora).replace(':', ', 200 examples:', 1)}; {fewest}, at rates "
            "chosen with 200.",
            "Of syntax, on fresh seeds (classes drawn once): " + "; ".join(
                f"{row['compared']}: {row['verdict']} ({row['difference']})" for row in own) + ".",
            "Of the base's own text after one task: "
            + "; ".join(first_task_lines(runs["forgetting"])[::3]) + ".",
            "After both tasks: " + "; ".join(last) + "."]


def _sentences(found: Iterable[Comparison]) -> list[str]:
    return [f"{one}." for one in found]
