"""The drawing behind chapter 07: each returns a figure and its alt text.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scratchbook.companions.compression_tables import (
    TARGETS,
    group_name,
    loss_of,
    mean_of,
    more,
    percent,
)
from scratchbook.teaching.figures import palette, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^Dv*"
LEAST = 0.1  # per cent more bits: where the axis of the curves begins


def plot_levels(values: Tensor, levels: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """How often weights of each size occur, in shares of their group's largest, above the codes.

    Shapes:   values (any), from -1 to 1; levels, for each kind, (16,)
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.2, 2.9))
    counts, edges = torch.histogram(values.flatten().float(), bins=60, range=(-1, 1))
    heights = (counts / counts.max()).tolist()
    ax.stairs(heights, edges.tolist(), fill=True, color=palette()[0], alpha=0.35)
    for place, (colour, (name, table)) in enumerate(zip(palette()[1:], levels.items(),
                                                        strict=False)):
        height = -0.12 - 0.16 * place
        ax.plot(table.tolist(), [height] * len(table), "|", color=colour, ms=11, mew=1.6)
        ax.text(1.06, height, name, color=colour, va="center", fontsize=9)
    ax.set(xlabel="weight, as a share of the largest in its group", yticks=[], xlim=(-1.05, 1.2))
    ax.spines["left"].set_visible(False)
    inner = float((values.abs() < 0.5).float().mean())
    near = {name: int((table.abs() < 0.5).sum()) for name, table in levels.items()}
    return figure, (f"{inner:.0%} of the weights lie within half of their group's largest; of 16 "
                    "codes there are so many there: "
                    + ", ".join(f"{name} {count}" for name, count in near.items()) + ".")


def plot_heat(found: Mapping[str, Mapping[str, float]], unit: str = "More bits per byte"
              ) -> tuple[Figure, str]:
    """A number for each kind of code (rows) and each size of group (columns), darker for more."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba

    kinds, groups = list(found), list(next(iter(found.values())))
    values = torch.tensor([[found[kind][group] for group in groups] for kind in kinds])
    figure, ax = plt.subplots(figsize=(5.4, 0.55 * len(kinds) + 1.1))
    shades = values.clamp(min=1e-3).log10()
    shade = ((shades + 3.2) / (float(shades.max()) + 4.2)).tolist()
    # one colour, more or less of it: the text on it is read on a light and on a dark page
    ax.pcolormesh([[to_rgba(palette()[0], part) for part in row] for row in shade])
    for row in range(len(kinds)):
        for column in range(len(groups)):
            ax.text(column + 0.5, row + 0.5, more(values[row, column].item()), ha="center",
                    va="center", fontsize=9)
    ax.set_xticks([i + 0.5 for i in range(len(groups))], [group_name(each) for each in groups])
    ax.set_yticks([i + 0.5 for i in range(len(kinds))], kinds)
    ax.set(xlabel="what shares a scale")
    ax.invert_yaxis()
    ax.tick_params(length=0)
    return figure, f"{unit}: " + "; ".join(
        f"{kind} " + ", ".join(f"{group_name(group)} {more(share)}" for group, share in row.items())
        for kind, row in found.items()) + "."


def plot_curves(curves: Mapping[str, Mapping[str, float]], dense: float) -> tuple[Figure, str]:
    """How many more bits against the share of weights that are gone; dashed after retraining.

    The axis of bits is logarithmic; what is below a tenth of a per cent stands at its foot.
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.2, 4.2))
    kinds = list(dict.fromkeys(name.removesuffix(", retrained") for name in curves))
    for name, curve in curves.items():
        place, healed = kinds.index(name.removesuffix(", retrained")), name.endswith("retrained")
        shares = sorted(curve, key=float)
        lost = [max(100 * (mean_of(curve[share]) / dense - 1), LEAST) for share in shares]
        ax.plot([float(share) for share in shares], lost,
                MARKERS[place % len(MARKERS)] + ("--" if healed else "-"), ms=5, lw=1.4,
                color=palette()[place % 8], label=name, mfc="none" if healed else None)
    ax.set(xlabel="share of the pruned layers' weights that are gone",
           ylabel="more bits per byte, %", yscale="log", xlim=(0, 1.35))
    ax.set_xticks([0, 0.25, 0.5, 0.75])
    ticks = [LEAST, 1, 10, 100]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="center right")
    return figure, f"Bits per byte; whole {dense:.2f}. " + "; ".join(
        f"{name}: " + ", ".join(f"{float(share):.0%} gone {mean_of(curve[share]):.2f}"
                                for share in sorted(curve, key=float))
        for name, curve in curves.items()) + "."


def plot_frontier(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """Loss against how many times smaller the file is; boxes show where the targets would be met.

    `rows` are those of the pipeline, the first the model that they are compared with.
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.2, 4.2))
    told = []
    for number, row in enumerate(rows[1:]):
        smaller, lost = rows[0]["bytes"] / row["bytes"], loss_of(rows[0], row)
        colour = palette()[number % 8]
        ax.errorbar([smaller], [100 * lost.value],
                    [[100 * (lost.value - lost.low)], [100 * (lost.high - lost.value)]],
                    fmt=MARKERS[number % len(MARKERS)], color=colour, ms=6, capsize=2,
                    label=row["name"])
        told.append(f"{row['name']} {smaller:.1f} times smaller, {percent(lost)}")
    right = max(110, *(2 * rows[0]["bytes"] / row["bytes"] for row in rows[1:]))
    low = min(0, *(100 * loss_of(rows[0], row).low for row in rows[1:])) - 3
    for times, loss in TARGETS:
        ax.fill_between([times, right], low, 100 * loss, color=palette()[2], alpha=0.13, lw=0)
    ax.set(xscale="log", xlim=(1, right), ylim=(low, None), xlabel="times smaller on the disk",
           ylabel="more bits per byte, %")
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="upper left")
    return figure, "Loss by how many times smaller the file is. " + "; ".join(told) + "."


def bits_still(heat: Mapping[str, Mapping[str, float]]) -> str:
    """What stands in the place of the living figure while scripts are off: the table of heat."""
    return table_html([{"codes": kind, **{f"a scale for {group_name(group)}": more(share)
                                          for group, share in row.items()}}
                       for kind, row in heat.items()], "More bits per byte than in float32")
