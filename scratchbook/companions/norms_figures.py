"""What stands behind chapter 04's figures and sentences.

A function that draws returns a figure and its alternative text; `findings` writes the Insights.

Chapter:  chapters/04_norms.ipynb
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scratchbook.evaluation.comparing import wilson
from scratchbook.norms import LayerNorm, RMSNorm
from scratchbook.teaching.draws import draw
from scratchbook.teaching.figures import INK, figure_svg, palette
from scratchbook.teaching.verdicts import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX"
BLOWN = 1.5  # a run this many times above the blind loss has blown up
CHANGES = {  # pairs of arrangements that differ in one thing
    "a final norm, to no other": ("final norm only", "no norm"),
    "a final norm, to norms in the parts": ("pre", "pre, no final norm"),
    "norms in the parts, no final one": ("pre, no final norm", "no norm"),
    "norms in the parts, to a final one": ("pre", "final norm only"),
    "post instead of pre": ("post", "pre"), "RMS instead of Layer": ("pre, RMS", "pre"),
    "QK-norm": ("pre, RMS, QK-norm", "pre, RMS")}


def plot_chains(sizes: Mapping[str, Sequence[float]]) -> tuple[Figure, str]:
    """The size of a vector after each layer, one line for each chain, on a logarithmic scale."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    for colour, marker, (name, line) in zip(palette(), MARKERS, sizes.items(), strict=False):
        ax.semilogy(range(len(line)), line, marker=marker, ms=3, color=colour, label=name)
    ax.set(xlabel="layer", ylabel="size of the entries (RMS)")
    ax.legend()
    return figure, "Size of the entries by layer. " + " ".join(
        f"{name}: from {line[0]:.2g} to {line[-1]:.2g}." for name, line in sizes.items())


def plot_depth(streams: Mapping[str, Sequence[float]], gradients: Mapping[str, Sequence[float]]
               ) -> tuple[Figure, str]:
    """Side by side: the stream's size behind each layer, and the gradient that arrives there."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.2), layout="constrained")
    words = []
    for ax, what, lines in ((axes[0], "stream", streams), (axes[1], "gradient", gradients)):
        for colour, marker, (name, line) in zip(palette(), MARKERS, lines.items(), strict=False):
            ax.semilogy(range(len(line)), line, marker=marker, ms=3, color=colour, label=name)
            words.append(f"{name}, {what}: {line[0]:.2g} to {line[-1]:.2g}")
        ax.set(xlabel="behind layer", title=f"size of the {what}")
    axes[0].legend()
    return figure, "By depth. " + "; ".join(words) + "."


def plot_training(runs: Mapping[str, tuple[Sequence, Sequence, Sequence]], every: int
                  ) -> tuple[Figure, str]:
    """A column for each run: its loss, and by layer the size of the stream and of the gradient."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, len(runs), figsize=(6.4, 5.4), sharex="col", sharey="row",
                                layout="constrained", squeeze=False)
    words, steps = [], max(len(run[0]) for run in runs.values())
    for column, (name, run) in enumerate(runs.items()):
        losses, *rest = (_finite(part) for part in run)
        axes[0, column].plot(range(len(losses)), losses, color=palette()[1])
        axes[0, column].set(yscale="log", title=name)
        for ax, by_step in zip(axes[1:, column], rest, strict=True):
            _by_layer(ax, by_step, every)
        axes[2, column].set(xlabel="training step", xlim=(-1, steps))
        words.append(f"{name}: loss {losses[0]:.3g} to {losses[-1]:.3g}, stream behind the last "
                     f"layer {rest[0][0][-1]:.2g} to {rest[0][-1][-1]:.2g}, gradient at the first "
                     f"{rest[1][0][0]:.1g} to {rest[1][-1][0]:.1g}")
    for ax, label in zip(axes[:, 0], ("loss (nats)", "stream (RMS)", "gradient (RMS)"),
                         strict=True):
        ax.set_ylabel(label)
    axes[1, -1].legend(ncols=2, fontsize=7)
    return figure, "Step by step. " + "; ".join(words) + "."


def _by_layer(ax: Axes, by_step: Sequence[Sequence[float]], every: int) -> None:
    import matplotlib.pyplot as plt

    layers = list(zip(*by_step, strict=True))
    for number, line in list(enumerate(layers))[::every]:
        ax.semilogy(range(len(line)), line, label=f"layer {number}",
                    color=plt.get_cmap("viridis")(0.3 + 0.55 * number / len(layers)))


def _finite(part: Sequence) -> list:
    """The steps until a number is not finite, or is zero and has no logarithm."""
    flat = [step if isinstance(step, Sequence) else [step] for step in part]
    ended = [n for n, step in enumerate(flat) if not all(math.isfinite(v) and v > 0 for v in step)]
    return list(part[:ended[0]] if ended else part)


def plot_precision(sizes: Sequence[float], found: Mapping[str, Sequence[float]]
                   ) -> tuple[Figure, str]:
    """Size behind a norm against size in front; crosses: zero below, NaN or inf above."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    words, (floor, ceiling) = [], (1e-4, 1e4)
    for number, (colour, marker, (name, line)) in enumerate(
            zip(palette(), MARKERS, found.items(), strict=False)):
        shown = [(x, y) for x, y in zip(sizes, line, strict=True) if floor < y < ceiling]
        ax.loglog(*zip(*shown, strict=True), marker=marker, ms=4, color=colour, label=name,
                  lw=2 * (len(found) - number) - 1)  # what lies below is wider, so all are seen
        lost = [(x, floor if y <= floor else ceiling) for x, y in zip(sizes, line, strict=True)
                if not floor < y < ceiling]
        for x, edge in lost:
            ax.plot(x * 1.06 ** number, edge, "x", color=colour, ms=6, clip_on=False)
        good = _run_around_one(sizes, line)
        words.append(f"{name} from {good[0]:.1g} to {good[-1]:.1g}" if good else f"{name} never")
    ax.set(xlabel="size in front of the norm (RMS)", ylabel="size behind it (RMS)",
           ylim=(floor, ceiling))
    ax.legend(fontsize=8)
    return figure, "Right within a tenth: " + "; ".join(words) + "."


def _run_around_one(sizes: Sequence[float], line: Sequence[float]) -> list[float]:
    """The sizes around 1 without a gap for which a norm's result is right within a tenth."""
    runs: list[list[float]] = [[]]
    for x, y in zip(sizes, line, strict=True):
        if 0.9 < y < 1.1:
            runs[-1].append(x)
        elif runs[-1]:
            runs.append([])
    return next((run for run in runs if run and run[0] <= 1 <= run[-1]), [])


def stability_data(layers: int = 24, width: int = 12) -> dict:
    """Random matrices and a start vector for the living figure, in few digits."""
    def rounded(x: Tensor) -> list:
        return [round(value, 3) for value in x.flatten().tolist()]

    matrices = draw(layers, width, width, name="chain") / math.sqrt(width)
    return {"width": width, "matrices": [rounded(m) for m in matrices],
            "start": rounded(draw(width, name="start"))}


def stability_still(data: Mapping, gain: float = 1.2) -> str:
    """The living figure at rest: four chains of the same matrices."""
    import matplotlib.pyplot as plt

    matrices = torch.tensor(data["matrices"]).view(-1, data["width"], data["width"])
    sizes = {name: chain_sizes(torch.tensor(data["start"]), gain * matrices, name)
             for name in ("no residual", "residual", "post", "pre")}
    figure, alt = plot_chains(sizes)
    svg = figure_svg(figure, alt)
    plt.close(figure)
    return svg


def chain_sizes(x: Tensor, matrices: Tensor, placement: str) -> list[float]:
    """The RMS of a vector after each matrix, under one of four arrangements.

    Shapes:   x (width,), matrices (layers, width, width) -> layers + 1 numbers
    """
    def size(y: Tensor) -> Tensor:
        return y.square().mean().sqrt()

    x, matrices = x.double(), matrices.double()  # squares of 1e-23 are nothing in float32
    sizes = [size(x).item()]
    for matrix in matrices:
        if placement == "no residual":
            x = matrix @ x
        elif placement == "residual":
            x = x + matrix @ x
        elif placement == "pre":
            x = x + matrix @ (x / size(x))
        else:
            x = x + matrix @ x
            x = x / size(x)
        sizes.append(size(x).item())
    return sizes


def gaps_to_torch(seed: int, width: int = 64) -> dict[str, float]:
    """The largest difference to torch's norms, in outputs and in all gradients."""
    pairs = {"nn.LayerNorm": (LayerNorm(width), nn.LayerNorm(width)),
             "nn.RMSNorm": (RMSNorm(width), nn.RMSNorm(width, eps=1e-5))}
    x, upstream = draw(2, 50, width, seed=seed)
    gaps = {}
    for name, (ours, theirs) in pairs.items():
        found = []
        for norm in (ours, theirs):
            with torch.no_grad():
                for number, weight in enumerate(norm.parameters()):
                    weight.copy_(draw(width, seed=seed, name=f"weight {number}"))
            given = x.clone().requires_grad_()
            out = norm(given)
            found.append([out, *torch.autograd.grad((out * upstream).sum(),
                                                    [given, *norm.parameters()])])
        gaps[name] = max((a - b).abs().max().item() for a, b in zip(*found, strict=True))
    return gaps


def trial_rows(trials: Mapping[str, Mapping[float, Sequence[float]]], blind: float) -> list[dict]:
    """A row for each arrangement: median loss at each rate, and blow-ups at the largest."""
    rows = []
    for name, by_rate in trials.items():
        row: dict[str, object] = {"arrangement": name}
        for rate, losses in by_rate.items():
            row[f"loss at lr {rate:g}"] = _median([x for x in losses if x < BLOWN * blind])
        hits, runs = blown(by_rate, blind)
        _, low, high = wilson(hits, runs)
        row["blew up at the largest"] = f"{hits} of {runs} ({low:.0%} to {high:.0%})"
        rows.append(row)
    return rows


def change_rows(trials: Mapping[str, Mapping], blind: float) -> list[dict]:
    """A row for each thing changed alone: the loss with it beside that without, at each rate."""
    return [{"added or changed": change, **{
        f"at lr {float(rate):g}": _beside(losses, trials[without][rate], BLOWN * blind)
        for rate, losses in trials[with_it].items()}}
        for change, (with_it, without) in CHANGES.items()]


def _beside(losses: Sequence[float], others: Sequence[float], limit: float) -> str:
    found = Comparison("", "", losses, others, limit=limit)
    return f"{found.word} ({found.gap})" if found.gap else found.word


def _median(losses: Sequence[float]) -> str:
    return f"{statistics.median(losses):.2f}" if losses else "none left"


def blown(by_rate: Mapping, blind: float) -> tuple[int, int]:
    """How many runs at the largest rate ended far above a model that looks at nothing."""
    losses = by_rate[max(by_rate, key=float)]
    return sum(not loss < BLOWN * blind for loss in losses), len(losses)


def plot_trials(trials: Mapping[str, Mapping[float, Sequence[float]]], blind: float
                ) -> tuple[Figure, str]:
    """Final loss against the learning rate, one mark for each run; crosses above did not end."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ceiling, words = BLOWN * blind, []
    for number, (colour, marker, (name, by_rate)) in enumerate(
            zip(palette(), MARKERS, trials.items(), strict=False)):
        for rate, losses in by_rate.items():
            place = rate * 1.12 ** (number - len(trials) / 2)
            inside = [loss for loss in losses if loss < ceiling]
            ax.plot([place] * len(inside), inside, marker, color=colour, ms=5,
                    label=name if rate == min(by_rate) else None)
            ax.plot([place] * (len(losses) - len(inside)), [ceiling] * (len(losses) - len(inside)),
                    "x", color=colour, ms=6)
        hits, runs = blown(by_rate, blind)
        words.append(f"{name} {hits} of {runs}")
    ax.axhline(blind, color=INK, lw=0.8, ls=":")
    ax.set(xscale="log", xlabel="learning rate", ylabel="final loss (nats)")
    rates = sorted(next(iter(trials.values())))
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    ax.legend(ncols=2, fontsize=8)
    return figure, (f"Final loss by learning rate; a model that looks at nothing has {blind:.2f}. "
                    "Runs that blew up at the largest rate: " + ", ".join(words) + ".")


def _changed(numbers: Mapping, change: str) -> str:
    row = next(row for row in change_rows(numbers["trials"], numbers["blind"])
               if row["added or changed"] == change)
    return "; ".join(f"{rate} {words}" for rate, words in row.items() if rate.startswith("at lr"))


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    trials, blind = numbers["trials"], numbers["blind"]
    counts = {name: blown(found, blind) for name, found in trials.items()}
    rate = max(next(iter(trials.values())), key=float)
    return [
        f"Blown up at a learning rate of {rate}, {numbers['depth']} layers: "
        + ", ".join(f"{name} {hits} of {runs}" for name, (hits, runs) in counts.items()) + ".",
        *(f"The loss with {change}, beside that without: {_changed(numbers, change)}."
          for change in list(CHANGES)[:4]),
        f"{numbers['chain_layers']} random layers of gain 1.25 ended at a size of "
        f"{numbers['chain']:,.0f}; with a norm behind each, at {numbers['chain_normed']:.2f}."]


def summary_lines(numbers: Mapping) -> list[str]:
    """Those lines of the Summary that hold a result of this run."""
    change = "a final norm, to norms in the parts"
    return [f"The loss with {change}, beside that without: {_changed(numbers, change)}."]
