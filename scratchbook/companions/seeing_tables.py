"""The tables, verdicts and closing sentences of chapter 06d.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scratchbook.companions.seeing_experiments import FIRST, intervals
from scratchbook.companions.seeing_figures import leaders, three_numbers
from scratchbook.evaluation.comparing import (
    NO_DIFFERENCE,
    Interval,
    bootstrap,
    paired_bootstrap,
    spearman,
    verdict_on,
)
from scratchbook.interpret.capture import Seen
from scratchbook.interpret.class_graphs import ClassTree
from scratchbook.interpret.flow import rollout
from scratchbook.interpret.overlays import Overlay, align, send_paths
from scratchbook.interpret.view import AttentionView

PAIRS = (("attention", "recency"), ("gradient", "recency"), ("gradient", "attention"),
         ("value-weighted", "attention"), ("rollout", "recency"), ("attention", FIRST),
         ("gradient", FIRST))


def between(each: Sequence[float], digits: int = 2) -> str:
    """An interval as text."""
    value, low, high = each
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


# --------------------------------------------------------------------------------- the code's side


def node_rows(view: AttentionView, found: Overlay, most: int = 8) -> list[dict]:
    """The first nodes of a tree, with the tokens that they cover."""
    return [{"node": f"{each.kind} {each.text}".strip(), "role": each.role or "root",
             "characters": f"{each.start} to {each.stop}",
             "tokens": f"{first} to {last - 1}: " + repr("".join(view.tokens[first:last]))[1:40]}
            for each, (first, last) in zip(found.nodes[:most], align(view.spans, found.nodes),
                                           strict=False)]


def path_lines(found: Overlay) -> list[str]:
    """The paths of messages, and the scopes with what they declare."""
    scopes = [f"{'  ' * scope.depth}{scope.kind} {scope.name}".rstrip() + " declares "
              + (", ".join(each.name for each in scope.declares) or "nothing")
              for scope in found.scopes]
    return [*send_paths(found), *scopes]


def tree_line(classes: ClassTree) -> str:
    """The longest line of the class tree, from its root down, and how many classes there are."""
    deepest = max(classes.superclass, key=lambda name: (len(classes.ancestors(name)), name))
    return (f"{len(classes.superclass)} classes; the deepest: "
            + " > ".join([*reversed(classes.ancestors(deepest)), deepest]))


def declaration_rows(names: Mapping[str, Mapping]) -> list[dict]:
    """One row for the chosen head of each language, one for the mean over its heads."""
    rows = []
    for language, each in names.items():
        for who in ("gap", "all heads"):
            chosen = f"head {each['layer']}.{each['head']}" if who == "gap" else who
            rows.append({"model": language, "who": chosen, "texts": each["texts"],
                         "more weight on the declaration": between(each[who], 3),
                         "verdict": declaration_word(each[who])})
    return rows


def declaration_word(gap: Sequence[float]) -> str:
    """Whether a gap is one."""
    return verdict_on(Interval(*gap), "looks away from it", "looks at it")


# ------------------------------------------------------------------------------------------- sinks


def sink_rows(found: Mapping) -> list[dict]:
    """What the strongest sink holds and brings."""
    return [{"measured": name, "value": between(each, digits)} for name, each, digits in (
        ("share of the weight on the first token", found["weight"], 2),
        ("length of its value, times the median of the others", found["length"], 2),
        ("bits that predictions move without the first token", found["moved"]["the first"], 4),
        ("bits that predictions move without all others", found["moved"]["all others"], 4),
        ("without the whole head", found["moved"]["all of them"], 4),
        ("without another head of the layer (median)", found["moved"]["another head"], 4))]


def sink_line(found: Mapping) -> str:
    """Which of the two silences moves the predictions more."""
    gap = paired_bootstrap(found["first"], found["others"])
    word = verdict_on(gap, "moves the predictions less than", "moves the predictions more than")
    word = "moves them neither clearly more nor less than" if word == NO_DIFFERENCE else word
    return (f"head {found['layer']}.{found['head']}: silencing all other tokens {word} silencing "
            f"the first ({found['texts']} methods, difference {between(gap, 4)} bits)")


def place_line(found: Mapping[str, Sequence[float]]) -> str:
    """Whether the sink is a place or a token."""
    words = {"place 0": ("less than place 0", "more than place 0"),
             "its neighbours": ("less than the tokens on its sides",
                                "more than the tokens on its sides")}
    gaps = {name: paired_bootstrap(found[name], found["<|method|>"]) for name in words}
    means = ", ".join(f"{name} {sum(each) / len(each):.2f}" for name, each in found.items())
    return (f"with a class in front ({len(found['place 0'])} classes): {means}; <|method|> gets "
            + ", ".join(f"{verdict_on(gap, *words[name])} ({between(gap)})"
                        for name, gap in gaps.items()))


# ------------------------------------------------------------------------------- verdicts and rows


def beats(found: Mapping[str, Sequence[float]],
          pairs: Sequence[tuple[str, str]] = PAIRS) -> list[str]:
    """A verdict for each pair of measures, from the same texts redrawn."""
    lines = []
    for one, other in pairs:
        gap = bootstrap([a - b for a, b in zip(found[one], found[other], strict=True)])
        word = verdict_on(gap, "agrees less with ablation", "agrees more with ablation")
        lines.append(f"{one} against {other}: {word} ({gap.value:+.2f}, {gap.low:+.2f} to "
                     f"{gap.high:+.2f})")
    return lines


def speed_rows(recorded: Mapping) -> list[dict]:
    """How long the explorer took to draw, and whether the stated bound was met."""
    return [{"drawn": each["what"], "median, ms": each["median_ms"],
             "fastest": each["fastest_ms"], "slowest": each["slowest_ms"],
             "processor, ms": each["processor_ms"], "bound, ms": each["bound_ms"],
             "verdict": each["verdict"]} for each in recorded["rows"]]


def misread_share(brought: Sequence[Tensor], attention: Mapping[int, Tensor]) -> float:
    """In what share of the rows of all heads the favourite is not the token that brings most.

    Rows of the first token, which has no choice, are left out.

    Shapes:   for each layer (batch, heads, time, time)
    """
    wrong = [(each[:, :, 1:].argmax(-1) != weights[:, :, 1:].argmax(-1)).float().mean()
             for each, weights in zip(brought, attention.values(), strict=True)]
    return torch.stack(wrong).mean().item()


def last_rows(seen: Seen) -> list[tuple[str, Tensor, Tensor]]:
    """What the last token looks at: of every head its name, the row and the values behind it."""
    return [(f"{layer}.{head}", seen.attention[layer][0, head, -1], seen.values[layer][0, head])
            for layer in sorted(seen.attention) for head in range(seen.attention[layer].shape[1])]


def even_rollout(view: AttentionView) -> tuple[Tensor, float]:
    """Rollout of maps that spread every row evenly, at the last place; and the rank correlation
    of the view's own rollout with it."""
    even = torch.ones_like(view.attention).tril()
    flat = rollout(even / even.sum(-1, keepdim=True))[-1, -1]
    own = rollout(view.attention)[-1, -1]
    return flat, spearman(own.tolist(), flat.tolist()).value


def random_map(row: Tensor, other: Tensor, seed: int) -> Tensor:
    """A row in which what the favourite loses goes to the others by shares drawn at random.

    It moves as much weight as `other` does, or all that the favourite has where that is less.
    """
    shares = torch.rand(len(row), generator=torch.Generator().manual_seed(seed))
    top = int(row.argmax())
    shares[top] = 0
    weight = min((row - other).abs().sum().item() / 2, row[top].item())
    moved = row + weight * shares / shares.sum()
    moved[top] = row[top] - weight
    return moved


# -------------------------------------------------------------------------------------- the ending


def numbers(views: Sequence[AttentionView], names: Mapping, sunk: Mapping,
            found: Mapping[str, Sequence[float]], settled: Sequence[float],
            taken: Sequence[object]) -> dict:
    """What the chapter measured, ready for JSON.

    `taken` says of which head the favourite's weight, how large, could be zero, and in how many
    heads of how many.
    """
    half = len(views) // 2
    chosen, scores = leaders(three_numbers(views[:half])), three_numbers(views[half:])
    return {"texts": len(views) - half,
            "leaders": {name: (layer, head, scores[name][layer, head].item())
                        for name, (layer, head, _) in chosen.items()},
            "means": {name: each.mean().item() for name, each in scores.items()},
            "names": dict(names), "sunk": dict(sunk), "agreement": dict(found),
            "settled": list(settled), "taken": list(taken)}


def findings(told: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    lead, mean = told["leaders"], told["means"]
    heads = {name: f"head {layer}.{head}" for name, (layer, head, _) in lead.items()}
    names = "; ".join(
        f"{language}, head {each['layer']}.{each['head']}: {declaration_word(each['gap'])}, "
        f"{between(each['gap'])}" for language, each in told["names"].items())
    ranked = intervals(told["agreement"])
    return [
        f"Three numbers over {told['texts']} Python functions, of heads chosen on as many others. "
        f"Entropy: {mean['entropy']:.2f} bits "
        f"on average, the sharpest {heads['entropy']} with {lead['entropy'][2]:.2f}. Previous "
        f"token: {heads['previous']} gives it {lead['previous'][2]:.2f}, the mean is "
        f"{mean['previous']:.2f}. Matching bracket: {heads['bracket']} gives it "
        f"{lead['bracket'][2]:.2f}, the mean is {mean['bracket']:.2f}.",
        f"Declaration against another name, on texts without a part in the choice: {names}.",
        "Smalltalk's sink, " + sink_line(told["sunk"]) + ".",
        "Rank correlation with ablation: " + ", ".join(
            f"{name} {between(each)}" for name, each in ranked.items()) + ".",
        "; ".join(beats(told["agreement"])) + ".",
        f"In at least {told['taken'][2]} of {told['taken'][3]} heads the favourite's weight could "
        f"be zero with the same output; head {told['taken'][0]}'s fell from "
        f"{told['taken'][1]:.2f}."]
