"""The drawing behind chapter 06e: each function returns a figure and its alt text.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scratchbook.teaching.figures import palette, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_heads(found: Mapping[str, Mapping[str, np.ndarray]], most: float = 0.4
               ) -> tuple[Figure, str]:
    """The excess of every head (rows) for every motif (columns), one panel for each model.

    Shapes:   for each model and motif (layers, heads)
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(7.2, 4.6), sharey=True)
    said = []
    for ax, (name, motifs) in zip(np.atleast_1d(axes), found.items(), strict=True):
        table = np.stack([np.nan_to_num(np.asarray(each)).ravel() for each in motifs.values()], 1)
        layers, heads = np.asarray(next(iter(motifs.values()))).shape
        image = ax.imshow(table, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        ax.set_xticks(range(len(motifs)), list(motifs), rotation=60, ha="right", fontsize=8)
        ax.set_yticks([heads * layer - 0.5 for layer in range(layers)],
                      [f"layer {layer}" for layer in range(layers)], va="top", fontsize=8)
        ax.set_title(name)
        head, motif = divmod(int(table.argmax()), len(motifs))
        said.append(f"{name}: the largest is {table.max():.2f}, {list(motifs)[motif]} at layer "
                    f"{head // heads}, head {head % heads}")
    figure.colorbar(image, ax=np.atleast_1d(axes).tolist(), shrink=0.7,
                    label="attention on targets minus on rivals")
    return figure, "Heat map of heads by motifs. " + "; ".join(said) + "."


def plot_grown(runs: Mapping[str, Any]) -> tuple[Figure, str]:
    """Loss (left) and the best induction score (right) over the steps of planted runs."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.0))
    for colour, (name, run) in zip(palette(), runs.items(), strict=False):
        left.plot(run.steps, run.losses, "o-", ms=3, color=colour, label=name)
        right.plot(run.steps, run.best, "o-", ms=3, color=colour, label=name)
    left.set(xlabel="step", ylabel="loss on repeated text, nats", ylim=(0, None))
    right.set(xlabel="step", ylabel="best induction score", ylim=(0, 1))
    right.axhline(0.4, lw=0.8, ls=":", color="gray")
    left.legend()
    figure.tight_layout()
    ends = "; ".join(f"{name}: loss {run.losses[-1]:.2f}, score {run.best[-1]:.2f}"
                     for name, run in runs.items())
    return figure, f"Loss and best induction score over the steps. At the end, {ends}."


def film_still(grown: Any) -> str:
    """A table that stands in for the film where scripts are off."""
    return table_html([{"step": step, "loss": loss, "best score": best} for step, loss, best in
                       zip(grown.steps, grown.losses, grown.best, strict=True)],
                      "The planted run by step")


def best_excess(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """For each motif the highest excess of any head, checkpoint by checkpoint."""
    return {name: [float(np.nanmax(np.array(row["excess"][name], dtype=float))) for row in rows]
            for name in rows[0]["excess"]}


def plot_evolution(rows: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> tuple[Figure, str]:
    """The best head's excess for some motifs, and the loss, over the checkpoints of a run."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.6, 3.4))
    steps, best = [row["step"] for row in rows], best_excess(rows)
    for colour, mark, name in zip(palette(), "os^DvP*X", shown, strict=False):
        ax.plot(steps, best[name], marker=mark, ms=3.5, color=colour, label=name)
    ax.set(xlabel="training step", ylabel="best head's excess", ylim=(0, None))
    other = ax.twinx()
    other.plot(steps, [row["loss"] for row in rows], ls="--", color="gray")
    other.set_ylabel("loss (dashed), nats")
    ax.legend(loc="upper left", bbox_to_anchor=(1.14, 1))
    ends = ", ".join(f"{name} {best[name][1]:.2f} to {best[name][-1]:.2f}" for name in shown)
    return figure, (f"Excess over {len(rows)} checkpoints. From the first trained one to the last: "
                    f"{ends}; loss {rows[1]['loss']:.2f} to {rows[-1]['loss']:.2f}.")


def plot_effects(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """How much the loss rises without a head, with intervals; hollow is its control."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.6, 0.34 * len(rows) + 1.0))
    for place, row in enumerate(rows):
        for shift, key, fill in ((-0.14, "effect", True), (0.14, "control", False)):
            found = row[key]
            ax.plot([found["low"], found["high"]], [place + shift] * 2, color=palette()[0], lw=1.2)
            ax.plot(found["mean"], place + shift, "o", ms=5, color=palette()[0],
                    mfc=palette()[0] if fill else "none")
    ax.set_yticks(range(len(rows)), [row["head"] for row in rows], fontsize=8)
    ax.axvline(0, color="gray", lw=0.8)
    ax.invert_yaxis()
    ax.set(xlabel="more loss without the head, nats (bars: 95 % over texts)")
    top = max(rows, key=lambda row: row["effect"]["mean"])
    return figure, (f"{len(rows)} heads and their controls. The largest rise is "
                    f"{top['effect']['mean']:.3f} nats, without {top['head']}; its control "
                    f"{top['control']['mean']:.3f}.")
