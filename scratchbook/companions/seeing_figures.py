"""The figures and tables of chapter 06d; the chapter says what they show.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scratchbook.evaluation.comparing import Interval
from scratchbook.interpret.overlays import Overlay, Stretch, align
from scratchbook.interpret.view import AttentionView
from scratchbook.teaching.figures import INK, palette
from scratchbook.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGES = 12  # at once; more is a tangle
Edge = tuple[int, int, float]  # who looks, at whom, with which weight


def spelled(token: str) -> str:
    """A token as an axis can show it."""
    return token.replace("\n", "⏎").replace("\t", "→").replace(" ", "·") or "∅"


# ----------------------------------------------------------------------------------- three numbers


def entropy_bits(attention: Tensor) -> Tensor:
    """The mean entropy of each head's rows, in bits: how many tokens it spreads over, as a power.

    Shapes:   attention (layers, heads, time, time) -> (layers, heads)
    """
    logs = attention.clamp_min(1e-12).log2()
    return -(attention * logs).sum(-1).mean(-1)


def previous_score(attention: Tensor) -> Tensor:
    """The mean weight on the token right before: (layers, heads)."""
    return attention.diagonal(-1, 2, 3).mean(-1)


def even_previous(time: int) -> float:
    """The previous-token score of a head that spreads every row evenly over what it may see."""
    return sum(1 / (place + 1) for place in range(1, time)) / (time - 1)


def bracket_score(attention: Tensor, tokens: Sequence[str]) -> tuple[Tensor, int]:
    """The mean weight that the token of a closing bracket gives to that of its opening one.

    Returns:  (layers, heads), and how many pairs there are that stand in two tokens
    """
    pairs, waiting = [], []
    for place, token in enumerate(tokens):
        for character in token:
            if character in "([{":
                waiting.append(place)
            elif character in ")]}" and waiting:
                opening = waiting.pop()
                pairs += [(place, opening)] * (place != opening)
    if not pairs:
        return torch.full(attention.shape[:2], torch.nan), 0
    return torch.stack([attention[:, :, q, k] for q, k in pairs]).mean(0), len(pairs)


def three_numbers(views: Sequence[AttentionView]) -> dict[str, Tensor]:
    """The three scores of every head, averaged over texts: (layers, heads) each."""
    brackets = [score for view in views
                for score, count in [bracket_score(view.attention, view.tokens)] if count]
    return {"entropy": torch.stack([entropy_bits(view.attention) for view in views]).mean(0),
            "previous": torch.stack([previous_score(view.attention) for view in views]).mean(0),
            "bracket": torch.stack(brackets).mean(0)}


def leaders(scores: Mapping[str, Tensor]) -> dict[str, tuple[int, int, float]]:
    """Of each score the layer, the head and the value that stand out; entropy's is the lowest."""
    found = {}
    for name, each in scores.items():
        flat = int(each.argmin() if name == "entropy" else each.argmax())
        found[name] = (*divmod(flat, each.shape[1]), each.flatten()[flat].item())
    return found


# --------------------------------------------------------------------------------- maps and graphs


def plot_grid(view: AttentionView, score: Tensor, threshold: float) -> tuple[Figure, str]:
    """Every head's map, layers downwards; those whose score reaches the threshold are outlined."""
    import matplotlib.pyplot as plt

    layers, heads, time, _ = view.attention.shape
    gap = 3
    tiled = torch.full((layers * (time + gap), heads * (time + gap)), torch.nan)
    for layer in range(layers):
        for head in range(heads):
            top, left = layer * (time + gap), head * (time + gap)
            tiled[top : top + time, left : left + time] = view.attention[layer, head]
    figure, ax = plt.subplots(figsize=(6.4, 6.4 * layers / heads + 0.5))
    steps = (tiled.sqrt() * 8).round() / 8  # few colours: a small file
    ax.imshow(steps.numpy(), vmin=0, vmax=1, interpolation="none")
    found = []
    for layer, head in (score >= threshold).nonzero().tolist():
        corner = (head * (time + gap) - 2, layer * (time + gap) - 2)
        ax.add_patch(plt.Rectangle(corner, time + 2.5, time + 2.5, fill=False, lw=2,
                                   edgecolor=palette()[1]))
        found.append(f"{layer}.{head} ({score[layer, head]:.2f})")
    ax.set_xticks([head * (time + gap) + time / 2 for head in range(heads)], range(heads))
    ax.set_yticks([layer * (time + gap) + time / 2 for layer in range(layers)], range(layers))
    ax.set(xlabel="head", ylabel="layer")
    ax.spines[:].set_visible(False)
    alt = (f"Maps of {layers} layers by {heads} heads over {time} tokens, the root of the weight "
           f"from dark (0) to light (1). Outlined, with a score of {threshold} or more: "
           + (", ".join(found) or "none") + ".")
    return figure, alt


def strongest(view: AttentionView, layer: int, head: int, most: int = EDGES) -> list[Edge]:
    """The largest weights between two different tokens of one head, the largest first."""
    table = view.attention[layer, head].clone().fill_diagonal_(0)
    values, places = table.flatten().topk(min(most, table.numel()))
    return [(*divmod(place, table.shape[1]), value)
            for value, place in zip(values.tolist(), places.tolist(), strict=True) if value > 0]


def numbers_in(frame: str) -> Tensor:
    """The weights that a frame of bertviz holds: (layers, heads, time, time)."""
    data = re.search(r"const params = (.*);", html.unescape(frame))[1].replace("<\\/", "</")
    return torch.tensor(json.loads(data)["attention"][0]["attn"])


def plot_head(view: AttentionView, layer: int, head: int, badge: str) -> tuple[Figure, str]:
    """One head twice: as a map, and as a graph of its strongest edges."""
    import matplotlib.pyplot as plt

    table = view.attention[layer, head]
    names = [spelled(token) for token in view.tokens]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 0.17 * len(names) + 1),
                                         width_ratios=(1.25, 1))
    left.imshow(table.sqrt().numpy(), vmin=0, vmax=1, aspect="auto", interpolation="none")
    left.set_yticks(range(len(names)), names, fontsize=7)
    left.set(xlabel="is looked at", ylabel="looks", title=badge)
    edges = strongest(view, layer, head)
    for query, key, weight in edges:
        right.plot([0, 1], [query, key], color=palette()[0], lw=4 * weight, alpha=0.85)
    for place in {query for query, _, _ in edges}:
        right.text(-0.04, place, names[place], ha="right", va="center", fontsize=7)
    for place in {key for _, key, _ in edges}:
        right.text(1.04, place, names[place], ha="left", va="center", fontsize=7)
    right.set(xlim=(-0.6, 1.6), ylim=(len(names) - 0.5, -0.5),
              title=f"its {len(edges)} strongest edges")
    right.axis("off")
    told = "; ".join(f"{names[q]} at {names[k]} {w:.2f}" for q, k, w in edges[:4])
    return figure, f"Head {layer}.{head}: {badge}. Its strongest edges: {told}."


# --------------------------------------------------------------------------------- the code's side


def along_messages(view: AttentionView, found: Overlay) -> tuple[Tensor, int]:
    """The mean weight that a message's selector gives to its receiver, for every head.

    A keyword selector asks from its last word; what the receiver weighs is summed over its tokens.

    Returns:  (layers, heads), and in how many of the messages the receiver's last token stands
              right before the selector
    """
    rows, right_before = [], 0
    for send in found.sends:
        if send.receiver[0] < 0:
            continue
        (_, asks), = align(view.spans, [Stretch("selector", *send.words[-1])])
        (first, last), = align(view.spans, [Stretch("receiver", *send.receiver)])
        if first < last <= asks - 1:
            rows.append(view.attention[:, :, asks - 1, first:last].sum(-1))
            right_before += last == asks - 1
    if not rows:
        raise ValueError("no message of this text has a receiver in tokens of its own")
    return torch.stack(rows).mean(0), right_before


def plot_code(view: AttentionView, found: Overlay, layer: int, head: int) -> tuple[Figure, str]:
    """A method's tokens with its tree and scopes below and one head's strongest edges above."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.6, 4.2))
    for place, token in enumerate(view.tokens):
        ax.text(place, 0, spelled(token), rotation=90, ha="center", va="center", fontsize=7)
    edges = strongest(view, layer, head)
    for query, key, weight in edges:
        middle, reach = (query + key) / 2, abs(query - key) / 2
        steps = torch.linspace(0, torch.pi, 40)
        ax.plot(middle - reach * steps.cos(), 1.6 + (0.5 + 0.22 * reach) * steps.sin(),
                color=palette()[0], lw=4 * weight, alpha=0.85)
    depth = _depths(found)
    ranges = align(view.spans, found.nodes)
    for each, (first, last), level in zip(found.nodes, ranges, depth, strict=True):
        if last > first:
            y = -1.9 - 0.42 * level
            ax.plot([first - 0.35, last - 0.65], [y, y], color=INK, lw=1.2)
            ax.text((first + last - 1) / 2, y - 0.04, each.kind, ha="center", va="top",
                    fontsize=5.5)
    for number, (first, last) in enumerate(align(view.spans, found.scopes)):
        ax.axvspan(first - 0.5, last - 0.5, ymax=0.42, color=palette()[number % 8], alpha=0.13,
                   lw=0)
    ax.set(xlim=(-0.8, len(view.tokens) - 0.2), ylim=(-2.6 - 0.42 * max(depth), None))
    ax.axis("off")
    names = [spelled(token) for token in view.tokens]
    told = "; ".join(f"{names[q]} at {names[k]} {w:.2f}" for q, k, w in edges[:3])
    scopes = ", ".join(f"{scope.kind} {scope.name}".strip() for scope in found.scopes)
    return figure, (f"Tokens of a method, below them {len(found.nodes)} nodes of its tree and the "
                    f"scopes {scopes}; above them head {layer}.{head}: {told}.")


def _depths(found: Overlay) -> list[int]:
    depth: list[int] = []
    for each in found.nodes:
        depth.append(0 if each.parent < 0 else depth[each.parent] + 1)
    return depth


# -------------------------------------------------------------------------- layers, lens, verdicts


def plot_lens(logits: Tensor, tokens: Sequence[str], tokenizer: Tokenizer, last: int = 12
              ) -> tuple[Figure, str]:
    """What each level would say next at the last positions, coloured by its probability.

    Shapes:   logits (levels, time, vocab)
    """
    import matplotlib.pyplot as plt

    chances, ids = logits.softmax(-1).max(-1)
    chances, ids, tokens = chances[:, -last:], ids[:, -last:], tokens[-last:]
    levels, time = chances.shape
    figure, ax = plt.subplots(figsize=(7.6, 0.36 * levels + 1.1))
    ax.imshow(chances.numpy(), vmin=0, vmax=1, aspect="auto", origin="lower",
              interpolation="none")
    for level in range(levels):
        for place in range(time):
            word = spelled(tokenizer.decode([int(ids[level, place])]))[:6]
            ax.text(place, level, word, ha="center", va="center", fontsize=6,
                    color="black" if chances[level, place] > 0.6 else "white")
    ax.set_xticks(range(time), [spelled(token) for token in tokens], rotation=90, fontsize=7)
    ax.set_yticks(range(levels), ["embedding", *range(1, levels)], fontsize=7)
    ax.set(xlabel="token read so far", ylabel="after layer")
    return figure, ("Share of all positions at which a level already says what the model says: "
                    + ", ".join(f"{share:.0%}" for share in settled(logits)) + ".")


def settled(logits: Tensor) -> list[float]:
    """For each level the share of positions whose likeliest token is already the model's."""
    ids = logits.argmax(-1)
    return (ids == ids[-1]).float().mean(-1).tolist()


def plot_agreement(found: Mapping[str, Interval], texts: int) -> tuple[Figure, str]:
    """Correlation of each measure with ablation, as intervals."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 2.8))
    for row, (name, each) in enumerate(found.items()):
        color = palette()[4 if name.startswith("recency") else 0]
        ax.plot([each.low, each.high], [row, row], color=color, lw=3)
        ax.plot(each.value, row, "o", color=color)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(found)), list(found))
    ax.set(xlabel="Spearman correlation with ablation, mean over texts",
           ylim=(len(found) - 0.5, -0.5))
    told = ", ".join(f"{name} {each.value:.2f} ({each.low:.2f} to {each.high:.2f})"
                     for name, each in found.items())
    return figure, f"Correlation with ablation over {texts} texts: {told}."


def plot_two_maps(first: Tensor, second: Tensor) -> tuple[Figure, str]:
    """Two rows of weights that give one output."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(6.8, 3.4), sharex=True, sharey=True,
                                layout="constrained")
    titles = ("the model's own map", "another map, the same output")
    for ax, row, title in zip(axes, (first, second), titles, strict=True):
        ax.plot(row.tolist(), drawstyle="steps-mid", color=palette()[0], lw=1.2)
        ax.set(ylabel="weight")
        ax.set_title(title, fontsize=9)
    top = int(first.argmax())
    for ax, row in zip(axes, (first, second), strict=True):
        ax.plot(top, row[top], "o", color=palette()[1], ms=5)
    axes[1].set(xlabel="place of the token that is looked at; the dot is the favourite")
    return figure, (f"Weights of one query over {len(first)} tokens. The favourite, token {top}, "
                    f"has {first[top]:.2f} above and {second[top]:.2f} below; "
                    f"{(second == 0).sum()} weights are zero below.")
