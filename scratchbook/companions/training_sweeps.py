"""The sweeps of chapter 06: five optimizers, each at its best rate, and rate against batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scratchbook.companions.training_race import OURS, RUNS, changed, race, with_steps
from scratchbook.evaluation.comparing import mean_and_spread, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# three rates each, so that the best is not one at the edge
RATES = {"muon": (0.005, 0.01, 0.02), "adamw": (0.0003, 0.001, 0.003),
         "lion": (0.0001, 0.0003, 0.001), "adafactor": (0.03, 0.1, 0.3),
         "galore": (0.003, 0.01, 0.03)}
GRID = (5e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SMALL = {"num_layers": 2, "d_model": 64, "head_dim": None, "d_ff": None, "num_kv_heads": None}


def optimizers(steps: int, seeds: range, runs: Path = RUNS) -> dict[str, dict]:
    """Each optimizer on the same model and steps: the first seed picks its rate, all seeds run it.

    Muon and GaLore leave what is not a matrix to AdamW, at a quarter of their rate.
    """
    found = {}
    for name, rates in RATES.items():
        tried = {}
        for rate in rates:
            recipe = changed(with_steps(OURS, steps), train={
                "optimizer": name, "lr": rate, "adamw_lr": rate / 4})
            tried[rate] = (recipe, race(f"{name}-{rate}-{steps}", recipe, seeds[:1], runs))
        best = min(tried, key=lambda rate: tried[rate][1]["losses"][0])
        found[name] = race(f"{name}-{best}-{steps}", tried[best][0], seeds, runs)
        found[name] |= {"rate": best, "tried": {str(rate): row["losses"][0]
                                                for rate, (_, row) in tried.items()}}
    return found


def rates_and_batches(tokens: int, rates: Sequence[float], batches: Sequence[int], seeds: range,
                      runs: Path = RUNS) -> dict[str, dict[str, list[float]]]:
    """AdamW on a smaller model, `tokens` characters for every cell: {batch: {rate: losses}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for batch in batches:
        steps = tokens // (batch * OURS.data.seq_len)
        for rate in rates:
            recipe = changed(with_steps(OURS, steps, steps), model=SMALL, train={
                "optimizer": "adamw", "lr": rate, "batch_size": batch, "schedule": "cosine",
                "warmup_steps": steps // 10})
            row = race(f"rate-{rate}-batch-{batch}", recipe, seeds, runs)
            found.setdefault(str(batch), {})[str(rate)] = row["losses"]
    return found


def best_rates(table: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict]:
    """For each batch size the best rate, and the rates that are not clearly worse."""
    rows = []
    for batch, losses in table.items():
        best = min(losses, key=lambda rate: sum(losses[rate]))
        near = [rate for rate in losses if rate == best
                or verdict(losses[rate], losses[best]) == "no clear difference"]
        rows.append({"batch": batch, "best rate": best,
                     "loss there": "{:.3f} ± {:.3f}".format(*mean_and_spread(losses[best])),
                     "rates not told apart from it": ", ".join(near)})
    return rows


def plot_heat(table: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str, ylabel: str,
              marked: Sequence[str] = ()) -> tuple[Figure, str]:
    """Mean losses as a map, a number in every cell; the columns in `marked` bear a star."""
    import matplotlib.pyplot as plt

    rows, columns = list(table), list(next(iter(table.values())))
    means = [[sum(table[row][column]) / len(table[row][column]) for column in columns]
             for row in rows]
    figure, ax = plt.subplots(figsize=(6.4, 0.5 * len(rows) + 1.1))
    low, high = min(map(min, means)), max(map(max, means))
    ax.imshow(means, cmap="viridis_r", aspect="auto", vmin=low, vmax=high)
    for y, line in enumerate(means):
        for x, mean in enumerate(line):
            dark = mean > low + 0.55 * (high - low)  # the colours run from dark (high) to light
            ax.text(x, y, f"{mean:.2f}", ha="center", va="center",
                    color="black" if not dark else "white")
    ax.set(xticks=range(len(columns)), yticks=range(len(rows)), yticklabels=rows,
           xticklabels=[f"{name} *" if name in marked else name for name in columns],
           xlabel=xlabel, ylabel=ylabel)
    ax.grid(False)
    best = {row: columns[min(range(len(columns)), key=line.__getitem__)]
            for row, line in zip(rows, means, strict=True)}
    said = "; ".join(f"{ylabel} {row}: best at {column}" for row, column in best.items())
    return figure, f"Mean loss by {xlabel} and {ylabel}. {said}."
