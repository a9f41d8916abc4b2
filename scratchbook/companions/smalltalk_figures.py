"""The drawing behind chapter 09: each function returns a figure and its text alternative.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scratchbook.teaching.figures import INK, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JUDGE = "all judges"
Tree = str | tuple


def plot_tree(tree: Tree) -> tuple[Figure, str]:
    """Nested (receiver, selector, arguments ...) as a tree, each message above its parts."""
    import matplotlib.pyplot as plt

    leaves: list[str] = []
    lines: list[tuple[tuple[float, float], tuple[float, float]]] = []
    marks: list[tuple[float, float, str, bool]] = []

    def place(node: Tree) -> tuple[float, int]:
        if isinstance(node, str):
            leaves.append(node)
            marks.append((len(leaves) - 1, 0, node, False))
            return len(leaves) - 1, 0
        below = [place(part) for part in (node[0], *node[2:])]
        across = sum(x for x, _ in below) / len(below)
        height = 1 + max(y for _, y in below)
        lines.extend(((across, height), spot) for spot in below)
        marks.append((across, height, node[1], True))
        return across, height

    height = place(tree)[1]
    figure, ax = plt.subplots(figsize=(max(4.0, 0.9 * len(leaves)), 0.75 * height + 0.6))
    for (x, y), (below_x, below_y) in lines:
        ax.plot([x, below_x], [y - 0.22, below_y + 0.22], color=INK, lw=1, alpha=0.4)
    for x, y, text, sent in marks:
        ax.text(x, y, text, ha="center", va="center", color=palette()[0] if sent else INK,
                fontfamily="monospace", fontsize=10,
                bbox={"facecolor": "#80808033", "edgecolor": "none", "pad": 2.5})
    ax.set(xlim=(-0.6, len(leaves) - 0.4), ylim=(-0.5, height + 0.5))
    ax.axis("off")
    return figure, f"A tree of messages, each above its receiver and arguments: {told(tree)}."


def told(tree: Tree) -> str:
    """The tree as text in which every message stands in brackets."""
    if isinstance(tree, str):
        return tree
    receiver, selector, *arguments = tree
    if not arguments:
        return f"({told(receiver)} {selector})"
    words = [f"{word}:" for word in selector.split(":")[:-1]] or [selector]
    sent = " ".join(f"{word} {told(each)}" for word, each in zip(words, arguments, strict=True))
    return f"({told(receiver)} {sent})"


def plot_tokenizers(numbers: Mapping[str, Any]) -> tuple[Figure, str]:
    """Characters per token of each tokenizer on each unseen project, and how many as ours."""
    import matplotlib.pyplot as plt

    found = numbers["chars_per_token"]
    projects = sorted(found["ours"], key=lambda name: found["ours"][name])
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    for marker, colour, (name, rows) in zip("osPD^v", palette(), found.items(), strict=False):
        ax.plot([rows[project] for project in projects], range(len(projects)), marker,
                color=colour, label=f"{name}, {numbers['vocab_size'][name]:,}", ms=6)
    ax.set_yticks(range(len(projects)), [name.split("/")[1] for name in projects])
    ax.set(xlabel="characters per token")
    ax.grid(axis="x")
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize=8)
    return figure, "Characters per token on projects that no tokenizer of ours saw. " + "; ".join(
        f"{name}: " + ", ".join(f"{project.split('/')[1]} {rows[project]:.2f}"
                                for project in projects) for name, rows in found.items()) + "."


def plot_training(numbers: Mapping[str, Any]) -> tuple[Figure, str]:
    """Training loss over the tokens read, and the held-out loss where it was measured."""
    import matplotlib.pyplot as plt

    found, checked = numbers["curve"], numbers["validation"]
    figure, ax = plt.subplots(figsize=(6.0, 3.2))
    ax.plot([tokens / 1e6 for tokens in found["tokens"]], found["loss"], color=palette()[0],
            label="training, mean of 50 steps")
    each = found["tokens"][-1] / found["steps"][-1]
    if checked:
        ax.plot([entry["step"] * each / 1e6 for entry in checked],
                [entry["validation_loss"] for entry in checked], "o", color=palette()[1],
                label="held-out projects")
    ax.set(xlabel="million tokens read", ylabel="nats per token")
    ax.legend()
    held = "; held-out loss " + ", ".join(
        f"{entry['validation_loss']:.2f} after step {entry['step']:,}" for entry in checked)
    return figure, (f"Training loss falls from {found['loss'][0]:.2f} to {found['loss'][-1]:.2f} "
                    f"nats per token over {found['tokens'][-1]:,} tokens"
                    + (held if checked else "") + ".")


def plot_sizes(numbers: Mapping[str, Any]) -> tuple[Figure, str]:
    """The training loss of each size over steps, and over operations."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.2), sharey=True, constrained_layout=True)
    for colour, style, found in zip(palette(), ("-", "--", ":"), numbers.values(),
                                    strict=False):
        label = f"{found['parameters'] / 1e6:.1f} million"
        axes[0].plot(found["steps"], found["loss"], style, color=colour, label=label)
        axes[1].plot([step * found["flops_per_step"] for step in found["steps"]], found["loss"],
                     style, color=colour)
    axes[0].set(xlabel="steps", ylabel="training loss, nats per token")
    axes[1].set(xlabel="operations, log scale", xscale="log")
    axes[0].legend(title="parameters")
    return figure, "Training loss of three sizes at the last of their steps: " + "; ".join(
        f"{name}, {found['parameters']:,} parameters: {found['loss'][-1]:.2f} nats after "
        f"{found['steps'][-1] * found['flops_per_step']:.1e} operations"
        for name, found in numbers.items()) + "."


def plot_validity(numbers: Mapping[str, Any], writers: Sequence[str]) -> tuple[Figure, str]:
    """The share of valid methods by their length, for each writer, with intervals."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.2, 3.4))
    first, second, third = numbers["training"]["quartiles"]
    labels = [f"up to {first:.0f}", f"to {second:.0f}", f"to {third:.0f}", "longer"]
    said = []
    for number, (marker, colour, name) in enumerate(zip("os^Dv", palette(), writers, strict=False)):
        found = numbers["samples"][name]["validity"]["by_quarter"][JUDGE]
        known = [(at, share) for at, share in enumerate(found) if share["value"] is not None]
        _points(ax, [at + 0.12 * (number - (len(writers) - 1) / 2) for at, _ in known],
                [share for _, share in known], marker, colour, name)
        said.append(f"{name}: " + ", ".join(f"{labels[at]} tokens {share['value']:.2f}"
                                            for at, share in known))
    ax.set_xticks(range(4), labels)
    ax.set(ylim=(0, 1.03), xlabel="tokens of the method, quarters of the training methods",
           ylabel="share valid by both parsers")
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure, "Valid methods by length. " + "; ".join(said) + "."


def _points(ax: Axes, places: Sequence[float], shares: Sequence[Mapping[str, float]], marker: str,
            colour: str, label: str) -> None:
    values = [share["value"] for share in shares]
    errors = [[max(share["value"] - share["low"], 0) for share in shares],
              [max(share["high"] - share["value"], 0) for share in shares]]
    ax.errorbar(places, values, errors, fmt=marker, color=colour, lw=1, capsize=2, ms=5,
                label=label)


def plot_completion(numbers: Mapping[str, Any]) -> tuple[Figure, str]:
    """How often each rival completes a statement rightly, by three measures."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.2, 3.2))
    rivals, measures = numbers["rivals"], ("exact", "tree", "selector")
    for number, (marker, colour, (name, found)) in enumerate(
            zip("os^DvPX*", palette(), rivals.items(), strict=False)):
        _points(ax, [at + 0.11 * (number - (len(rivals) - 1) / 2) for at in range(3)],
                [found[measure] for measure in measures], marker, colour, name)
    ax.set_xticks(range(3), ["the same tokens", "the same tree", "the same last selector"])
    ax.set(ylim=(0, None), ylabel="share of the statements")
    ax.legend(fontsize=8)
    return figure, f"Completions of {numbers['cases']:,} statements. " + "; ".join(
        f"{name}: " + ", ".join(f"{measure} {found[measure]['value']:.2f}" for measure in measures)
        for name, found in rivals.items()) + "."


def plot_checkpoints(numbers: Mapping[str, Any], names: Sequence[str]) -> tuple[Figure, str]:
    """Held-out loss, and measures of samples, over the checkpoints of the run."""
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6.0, 4.8), sharex=True,
                                         constrained_layout=True)
    steps, values = numbers["steps"], numbers["values"]
    top.plot(steps, values["loss"], "o-", color=palette()[0], ms=4)
    top.set(ylabel="bits per character, held out")
    for marker, colour, name in zip("os^Dv", palette()[1:], names, strict=False):
        bottom.plot(steps, [float("nan") if each is None else each for each in values[name]],
                    marker + "-", color=colour, ms=4, label=name)
    bottom.set(xlabel="step", ylabel="share", ylim=(-0.03, 1.03))
    bottom.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    said = [f"{name} from {values[name][0]} to {values[name][-1]}" for name in names]
    return figure, (f"Over {len(steps)} checkpoints: bits per character from "
                    f"{values['loss'][0]:.2f} to {values['loss'][-1]:.2f}; " + "; ".join(said)
                    + ".")
