"""The drawing behind chapter 05b: each function returns a figure and its alternative text.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from scratchbook.teaching.figures import INK, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_file(header: Mapping[str, Mapping], kinds: Mapping[str, str], start: int
              ) -> tuple[Figure, str]:
    """A safetensors file from its first byte to its last, coloured by what the bytes are.

    `kinds` maps a part of a tensor's name to the label of its kind; `start` is where the
    numbers begin.
    """
    import matplotlib.pyplot as plt

    places = {name: entry["data_offsets"] for name, entry in header.items()
              if name != "__metadata__"}
    labels = ["header", *dict.fromkeys(kinds.values()), "the rest"]
    colours = dict(zip(labels, palette(), strict=False))
    totals = dict.fromkeys(labels, 0) | {"header": start}
    figure, ax = plt.subplots(figsize=(7.2, 1.5))
    ax.barh(0, start / 1e3, color=colours["header"])
    for name, (begin, end) in places.items():
        label = next((kinds[part] for part in kinds if part in name), "the rest")
        totals[label] += end - begin
        ax.barh(0, (end - begin) / 1e3, left=(start + begin) / 1e3, color=colours[label],
                edgecolor="none")
    for label in labels:
        ax.barh(0, 0, color=colours[label], label=label)
    ax.set(yticks=[], xlabel="kilobytes from the start of the file")
    ax.spines["left"].set_visible(False)
    ax.legend(ncols=len(labels), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8,
              handlelength=1, columnspacing=1)
    size = sum(totals.values())
    return figure, (f"A file of {size:,} bytes, {len(places)} tensors: " + ", ".join(
        f"{label} {count / size:.1%}" for label, count in totals.items()) + ".")


def plot_similarity(texts: Sequence[str], likeness: Tensor) -> tuple[Figure, str]:
    """The cosine of every two sentence vectors, with the texts beside the rows."""
    import matplotlib.pyplot as plt

    count = len(texts)
    figure, ax = plt.subplots(figsize=(7.2, 0.42 * count + 0.6))
    image = ax.imshow(likeness, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for row in range(count):
        for column in range(count):
            value = float(likeness[row, column])
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                    color="black" if value > 0.55 else "white")
    ax.set(xticks=range(count), xticklabels=range(1, count + 1), yticks=range(count),
           yticklabels=[f"{text}  {number}" for number, text in enumerate(texts, start=1)])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, label="cosine", pad=0.02)
    pairs = sorted(((float(likeness[a, b]), a, b) for a in range(count) for b in range(a)),
                   reverse=True)
    told = "; ".join(f"“{texts[b]}” and “{texts[a]}” {value:.2f}" for value, a, b in pairs[:3])
    return figure, f"Cosines of {count} sentence vectors. Closest: {told}."


def plot_gaps(runs: Mapping[str, Mapping[str, float]], tolerance: float) -> tuple[Figure, str]:
    """How far each module's output is from the reference's, in the order of the forward pass."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.2, 3.4))
    said = []
    for marker, colour, (label, gaps) in zip("os^", palette(), runs.items(), strict=False):
        names, floor = list(gaps), 1e-9
        ax.plot(range(len(names)), [max(gap, floor) for gap in gaps.values()], marker + "-",
                color=colour, ms=4, lw=1.2, label=label)
        first = next((name for name in names if not gaps[name] <= tolerance), None)
        said.append(f"{label}: at most {max(gaps.values()):.0e}, "
                    + (f"first beyond the tolerance at {first}" if first else "never beyond"))
    ax.axhline(tolerance, color=INK, ls=":", lw=1)
    ax.set(yscale="log", ylabel="largest gap, relative", xticks=range(len(names)))
    ax.set_xticklabels([name.replace("blocks.", "").replace("_", " ") for name in names],
                       rotation=60, ha="right", fontsize=8)
    ax.legend()
    return figure, (f"Gap to the reference over {len(names)} modules, tolerance {tolerance:g}. "
                    + ". ".join(said) + ".")


def plot_steps(rows: Sequence[Mapping]) -> tuple[Figure, str]:
    """What a step costs each program, by type and batch; dotted: reading the weights alone."""
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys((row["type"], row["batch"]) for row in rows))
    programs = [who for who in dict.fromkeys(row["who"] for row in rows) if who != "reading"]
    at = {(row["type"], row["batch"], row["who"]): row["milliseconds"] for row in rows}
    figure, ax = plt.subplots(figsize=(7.2, 0.75 * len(groups) + 0.8))
    said = []
    for place, group in enumerate(groups):
        for number, (who, colour) in enumerate(zip(programs, palette(), strict=False)):
            time, y = at[*group, who], place + 0.25 * (number - 1)
            ax.barh(y, time, 0.22, color=colour, label=who if place == 0 else None)
            ax.text(time, y, f" {time:.0f}", va="center", fontsize=8)
        ax.vlines(at[*group, "reading"], place - 0.45, place + 0.45, color=INK, ls=":")
        said.append(f"{group[0]}, {group[1]} at a time: " + ", ".join(
            f"{who} {at[*group, who]:.0f}" for who in [*programs, "reading"]))
    ax.set(yticks=range(len(groups)), xlabel="CPU milliseconds per step",
           yticklabels=[f"{kind}\nbatch {batch}" for kind, batch in groups])
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(programs))
    return figure, "CPU milliseconds per step. " + "; ".join(said) + "."


def targets(ratios: Sequence[Mapping]) -> list[dict[str, object]]:
    """For each type and batch how many times as fast as transformers, and whether that will do."""
    return [{"type": row["type"], "batch": row["batch"], "wanted": row["target"],
             "fast_decoding": row["ratio"], "reading alone": row["at_the_limit"],
             "verdict": row["verdict"]}
            for row in ratios if row["who"] == "fast"]


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    lost, bits, errors = numbers["costs"], numbers["bits"], numbers["errors"]
    lines = [f"{len(errors)} random models of published kinds, read from files: the largest error "
             f"against transformers is {max(errors.values()):.0e}.",
             f"Turning matrices by their shape loaded silently: {bits['turned when it must']:.2f} "
             f"bits per byte instead of {bits['theirs']:.2f}. One wrong matrix cost "
             f"{min(lost):.3f} to {max(lost):.3f}; the first diverging module named it."]
    if "saved" in numbers:
        times, positions = numbers["saved"]
        lines.append(f"In this tiny model the cache saves a factor {times:.1f} of the time and "
                     f"{positions:.0f} of the positions; the greedy tokens are the same.")
    return lines
