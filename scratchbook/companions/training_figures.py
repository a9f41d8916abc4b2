"""The drawing and the plumbing behind chapter 06: figures, the learning film, the sick runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scratchbook.data.batches import IGNORED, Batch, Windows
from scratchbook.evaluation.comparing import mean_and_spread
from scratchbook.generation import generate
from scratchbook.teaching.draws import draw
from scratchbook.teaching.figures import INK, palette
from scratchbook.training.schedules import learning_rate_factor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_paths(paths: Mapping[str, Sequence[Sequence[float]]]) -> tuple[Figure, str]:
    """Ways down a valley that is a hundred times steeper across than along."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 2.9))
    along, across = torch.meshgrid(torch.linspace(-0.6, 1.7, 120), torch.linspace(-1.3, 1.3, 120),
                                   indexing="xy")
    ax.contour(along, across, 0.5 * along**2 + 50 * across**2, levels=[0.1, 0.5, 2, 8, 25, 60],
               colors=INK, linewidths=0.4, alpha=0.6)
    said = []
    for style, (name, path) in zip(("o-", "s-", "^-"), paths.items(), strict=False):
        ax.plot([p[0] for p in path], [p[1] for p in path], style, ms=3, lw=1, label=name)
        said.append(f"{name} ends {path[-1][0]:.2f} along and {path[-1][1]:.2f} across")
    ax.set(xlabel="along the valley", ylabel="across", ylim=(-1.35, 1.35), xlim=(-0.6, 1.7))
    ax.legend()
    return figure, f"{len(path) - 1} steps from (1.50, 1.00): " + "; ".join(said) + "."


def plot_schedules(schedules: Mapping[str, Sequence[float]]) -> tuple[Figure, str]:
    """The share of the learning rate over a run, for several schedules."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 2.6))
    half = {}
    for style, (name, values) in zip(("-", "--", "-.", ":"), schedules.items(), strict=False):
        ax.plot(values, style, label=name)
        half[name] = values[len(values) // 2]
    ax.set(xlabel="step", ylabel="share of the rate")
    ax.legend()
    return figure, "Half-way the rate stands at " + ", ".join(
        f"{value:.2f} ({name})" for name, value in half.items()) + "."


def plot_curves(curves: Mapping[str, Sequence[Sequence[float]]], xlabel: str,
                level: float | None = None, ylabel: str = "loss, nats per character"
                ) -> tuple[Figure, str]:
    """Lines of (x, loss) by name; several under one name share a colour."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    said = []
    for colour, style, (name, lines) in zip(palette(), ("-", "--", "-.", ":", "-"),
                                            curves.items(), strict=False):
        for number, line in enumerate(lines):
            ax.plot([x for x, _ in line], [y for _, y in line], style, color=colour, lw=1.4,
                    label=name if number == 0 else None)
        ends = [line[-1][1] for line in lines]
        said.append(f"{name} ends at {sum(ends) / len(ends):.3f} after {lines[0][-1][0]:.0f}")
    if level is not None:
        ax.axhline(level, color=INK, lw=0.7, ls=":")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return figure, f"{ylabel} over {xlabel}: " + "; ".join(said) + "."


def plot_costs(costs: Mapping[str, Sequence[float]], unit: str) -> tuple[Figure, str]:
    """One row per change: what each seed pays for it, the mean and its 95 % interval."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 0.38 * len(costs) + 0.9))
    said = []
    for row, (name, values) in enumerate(costs.items()):
        mean, half = mean_and_spread(list(values))
        ax.errorbar(mean, row, xerr=half, fmt="|", ms=14, color=palette()[0], capsize=3, lw=1.5)
        ax.plot(values, [row] * len(values), "o", ms=4, color=palette()[1], alpha=0.8)
        said.append(f"{name} {mean:+.3f} ± {half:.3f}")
    ax.axvline(0, color=INK, lw=0.7)
    ax.set(yticks=range(len(costs)), yticklabels=list(costs), xlabel=unit)
    ax.invert_yaxis()
    return figure, f"{unit}: " + ", ".join(said) + "."


def plot_clinic(runs: Mapping[str, Sequence[dict]]) -> tuple[Figure, str]:
    """Small panels, one loss curve each, under one axis; letters in place of names."""
    import matplotlib.pyplot as plt

    columns = 3
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.6, 1.9 * rows), sharex=True,
                                layout="constrained")
    said = []
    for ax, (letter, name) in zip(axes.flat, lettered(runs).items(), strict=False):
        line = losses(runs[name])
        ax.plot(line, lw=1)
        ax.set_title(letter, fontsize=9)
        said.append(f"{letter}: from {line[0]:.1f} to {line[-1]:.1f}, at most {max(line):.1f}")
    for ax in list(axes.flat)[len(runs):]:
        ax.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("loss", fontsize=9)
    return figure, "Loss curves. " + "; ".join(said) + "."


def lettered(runs: Mapping[str, object]) -> dict[str, str]:
    """Letters for names, in an order that gives nothing away."""
    order = sorted(runs, key=lambda name: name[::-1])
    return {chr(ord("A") + place): name for place, name in enumerate(order)}


def losses(log: Sequence[dict]) -> list[float]:
    """The training losses of a log, step by step."""
    return [entry["loss"] for entry in log if "loss" in entry]


def blind(ids: Tensor) -> float:
    """What each token costs whoever knows only how frequent it is, in nats."""
    return torch.special.entr(torch.bincount(ids) / len(ids)).sum().item()


def settled(log: Sequence[dict], last: int = 20) -> float:
    """Where a run stands: the mean of its last training losses."""
    line = losses(log)[-last:]
    return sum(line) / len(line)


def noisy_valley(direction: Callable[[Tensor, dict], Tensor], kind: str, rate: float,
                 steps: int = 200, walks: int = 500) -> float:
    """Mean loss of walks down the valley when every step sees it somewhere else.

    `direction(gradient, memory)` is an optimizer's step before the rate; `kind` names a schedule.
    """
    place, memory = torch.tensor([1.5, 1.0]).repeat(walks, 1), {}  # (walks, 2)
    for step in range(steps):
        seen = place + draw(walks, 2, seed=step, name="trembling")
        share = learning_rate_factor(step, steps, steps // 10, kind)
        place = place - rate * share * direction(seen * torch.tensor([1.0, 100.0]), memory)
    return (0.5 * place[:, 0] ** 2 + 50 * place[:, 1] ** 2).mean().item()


class Film:
    """Collects frames while a model trains: call it as `on_step` of `train`.

    A frame holds what the model writes after `prompt`, its loss, and what one head looks at.
    """

    def __init__(self, steps: Sequence[int], prompt: str, text: str, length: int = 90):
        self.wanted, self.prompt, self.text, self.length = set(steps), prompt, text, length
        self.steps: list[int] = []
        self.samples: list[str] = []
        self.attention: list[list[list[float]]] = []

    def __call__(self, step: int, model: nn.Module) -> None:
        if step not in self.wanted:
            return
        was = model.training
        ids = generate(model, list(self.prompt.encode()), self.length, temperature=0.7, seed=0)
        weights = attention_of(model.eval(), list(self.text.encode()))
        self.steps.append(step)
        self.samples.append(self.prompt + bytes(ids).decode("utf-8", errors="replace"))
        self.attention.append([[round(w, 3) for w in row] for row in weights.tolist()])
        model.train(was)

    def data(self, log: Sequence[dict]) -> dict[str, Any]:
        """What the living figure `film` plays."""
        curve = [[e["step"], round(e["loss"], 4)] for e in log if "loss" in e]
        losses = [curve[max(step, 1) - 1][1] for step in self.steps]
        return {"steps": self.steps, "losses": losses, "curve": curve, "samples": self.samples,
                "attention": self.attention, "tokens": list(self.text)}


@torch.no_grad()
def attention_of(model: nn.Module, ids: Sequence[int], layer: int = -1) -> Tensor:
    """The weights of a layer's attention on a text, averaged over its heads: (time, time)."""
    kept = {}

    def keep(module: nn.Module, args: tuple) -> None:
        kept["args"] = args

    attention = model.blocks[layer].attention
    handle = attention.register_forward_pre_hook(keep)
    try:
        model(torch.tensor([list(ids)]))
    finally:
        handle.remove()
    return attention(*kept["args"], return_weights=True)[1][0].mean(dim=0)


class Shuffled(Windows):
    """A planted mistake: targets that have nothing to do with their ids."""

    def batch(self, step: int, size: int) -> Batch:
        """Some ids, and other windows' targets in any order."""
        batch = super().batch(step, size)
        order = torch.randperm(batch.targets.numel())
        return Batch(batch.ids, batch.targets.flatten()[order].view_as(batch.targets))


class Padded(Windows):
    """A planted mistake: short texts whose padding counts as a target."""

    padding, kept = 0, 2

    def batch(self, step: int, size: int) -> Batch:
        """Rows of two tokens, the rest is padding."""
        return self._filled(super().batch(step, size))

    def validation(self, size: int):
        """The held-out windows, filled up in the same way."""
        return map(self._filled, super().validation(size))

    def _filled(self, batch: Batch) -> Batch:
        ids, targets = batch.ids.clone(), batch.targets.clone()
        ids[:, self.kept:], targets[:, self.kept - 1:] = self.padding, self.padding
        return Batch(ids, targets)


class PaddingIgnored(Padded):
    """The same texts with the padding's targets set to -100."""

    def _filled(self, batch: Batch) -> Batch:
        filled = super()._filled(batch)
        filled.targets[:, self.kept - 1:] = IGNORED
        return filled


def longest_copy(text: str, source: str, least: int = 4) -> int:
    """How many characters in a row `text` has in common with `source`."""
    best = 0
    for start in range(len(text)):
        while best + least <= len(text) - start and text[start : start + best + 1] in source:
            best += 1
    return best
