"""The tables, verdicts and closing sentences of chapter 06d.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scratchbook.companions.seeing_experiments import FIRST, intervals, over_texts
from scratchbook.companions.seeing_figures import leaders, spelled, three_numbers
from scratchbook.evaluation.comparing import (
    NO_DIFFERENCE,
    NOT_TESTED,
    Interval,
    paired,
    spearman,
    verdict_on,
)
from scratchbook.interpret.capture import Seen
from scratchbook.interpret.class_graphs import ClassTree
from scratchbook.interpret.flow import rollout
from scratchbook.interpret.overlays import Overlay, Stretch, align, send_paths
from scratchbook.interpret.token_overlays import facts, token_overlay
from scratchbook.interpret.view import AttentionView

PAIRS = (("gradient", "attention"), ("value-weighted", "attention"))
PLACES = ("recency", FIRST)


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


def told(view: AttentionView, language: str, word: str, fact: str) -> str:
    """One of the facts that the overlay tells of the last place where a text has this word."""
    place = view.text.rindex(word)
    (token, _), = align(view.spans, [Stretch("word", place, place + 1)])
    return dict(facts(token_overlay(view, language), token))[fact]


def looked_up(listed: AttentionView, sent: AttentionView, area: AttentionView,
              panel: Mapping) -> list[str]:
    """The answers to the chapter's seven tasks: five of the overlay, two of heads."""
    place, = (each for each in panel["around"]["sends"] if each["selector"] == "prepend:")
    names = [name for _, name in panel["rows"]]
    below = names[names.index(panel["here"]) + 1 :]
    last, (query, width) = sent.attention[1, 4, -1], (
        align(area.spans, [Stretch("name", at, at + 5)])[0][0]
        for at in (area.text.rindex("width"), area.text.index("width")))
    row = area.attention[4, 7, query]
    return [
        "(1) " + told(listed, "smalltalk", "into:", "Argument of into:"),
        "(2) " + told(listed, "smalltalk", "each ]", "Variable"),
        f"(3) {', '.join(place['implementors'])}; inherited by {', '.join(below)}",
        "(4) " + told(sent, "smalltalk", "changed", "Cascade"),
        "(5) " + told(sent, "smalltalk", "size", "Path"),
        f"(6) {spelled(sent.tokens[int(last.argmax())])}, {last.max():.2f}",
        f"(7) {spelled(area.tokens[int(row.argmax())])}, {row.max():.2f}; the parameter "
        f"{spelled(area.tokens[width])} gets {row[width]:.2f}: one text is not the mean of many"]


COMPARED = {"names": "the names around it", "declarations": "another of its scope",
            "uses": "an earlier use of the name", "all heads": "the names around it"}


def declaration_rows(names: Mapping[str, Mapping]) -> list[dict]:
    """For the chosen head of each language one row a kind of rivals, and one for all its heads."""
    rows = []
    for language, each in names.items():
        for rivals, gaps in each["gaps"].items():
            gap = over_texts(gaps) if len(gaps) >= 3 else None
            rows.append({
                "model": language,
                "who": rivals if rivals == "all heads" else f"head {each['layer']}.{each['head']}",
                "beside": COMPARED[rivals], "texts": len(gaps),
                "more on the declaration": between(gap, 3) if gap else "",
                "verdict": declaration_word(gap) if gap else NOT_TESTED})
    return rows


def declaration_word(gap: Sequence[float]) -> str:
    """Whether a gap is one."""
    return verdict_on(Interval(*gap), "looks away from it", "looks at it")


def apart_line(layer: int, head: int, found: Mapping) -> str:
    """What a head follows where a receiver and the token before the selector are two."""
    gap = paired(found["receiver"], found["right before"])
    word = verdict_on(gap, "the token right before gets more", "the receiver gets more")
    means = [sum(found[name]) / len(found[name]) for name in ("receiver", "right before")]
    return (f"where they are two ({found['messages']} messages of {len(found['receiver'])} other "
            f"methods), head {layer}.{head} gives the receiver {means[0]:.2f}, the token right "
            f"before {means[1]:.2f}: {word}")


# ------------------------------------------------------------------------------------------- sinks


def sink_rows(found: Sequence[Mapping]) -> list[dict]:
    """What the strongest sinks hold and bring, a column a head."""
    names = {"weight": "share of the weight on the first token",
             "bare": "the same where the method's first token stands there",
             "length": "length of what it brings per weight, times the median"}
    moves = {"the first": "bits that predictions move without the first token",
             "all others": "bits that predictions move without all others",
             "all of them": "without the whole head",
             "another head": "without another head of the layer (median)"}
    heads = {f"head {each['layer']}.{each['head']}": each for each in found}
    return [{"measured": said} | {head: between(each[name]) for head, each in heads.items()}
            for name, said in names.items()] + [
        {"measured": said} | {head: between(each["moved"][name], 4)
                              for head, each in heads.items()} for name, said in moves.items()]


def sink_line(found: Mapping) -> str:
    """Which of the two silences moves the predictions more."""
    gap = paired(found["others"], found["first"])
    word = verdict_on(gap, "moves the predictions less than", "moves the predictions more than")
    word = "moves them neither clearly more nor less than" if word == NO_DIFFERENCE else word
    return (f"head {found['layer']}.{found['head']}: silencing all other tokens {word} silencing "
            f"the first ({found['texts']} methods, difference {between(gap, 4)} bits)")


def place_line(sink: Mapping, found: Mapping[str, Sequence[float]]) -> str:
    """Whether a sink is a place or a token."""
    words = {"place 0": ("less than place 0", "more than place 0"),
             "its neighbours": ("less than the tokens on its sides",
                                "more than the tokens on its sides")}
    gaps = {name: paired(found["<|method|>"], found[name]) for name in words}
    means = ", ".join(f"{name} {sum(each) / len(each):.2f}" for name, each in found.items())
    return (f"head {sink['layer']}.{sink['head']} with a class in front "
            f"({len(found['place 0'])} classes): {means}; <|method|> gets "
            + ", ".join(f"{verdict_on(gap, *words[name])} ({between(gap)})"
                        for name, gap in gaps.items()))


# ------------------------------------------------------------------------------- verdicts and rows


def beats(found: Mapping[str, Sequence[float]],
          pairs: Sequence[tuple[str, str]] = PAIRS) -> list[str]:
    """A verdict for each pair of measures, on the same texts."""
    lines = []
    for one, other in pairs:
        gap = paired(found[one], found[other])
        word = verdict_on(gap, "agrees less with ablation", "agrees more with ablation")
        lines.append(f"{one} against {other}: {word} ({gap.value:+.2f}, {gap.low:+.2f} to "
                     f"{gap.high:+.2f})")
    return lines


def beyond_rows(found: Mapping[str, Sequence[float]]) -> list[dict]:
    """How each measure that reads the model does beside the two that know only places."""
    rows = []
    for name in found:
        if name in PLACES:
            continue
        row: dict = {"measure": name, "correlation": between(over_texts(found[name]))}
        for place in PLACES:
            gap = paired(found[name], found[place])
            row[f"beyond {place}"] = f"{gap.low:+.2f} to {gap.high:+.2f}"
            row[f"than {place}"] = verdict_on(gap, "less", "more")
        rows.append(row)
    return rows


def beyond_both(found: Mapping[str, Sequence[float]]) -> tuple[list[str], list[str]]:
    """The measures that agree with ablation more than both recencies do, and the other ones."""
    split: tuple[list[str], list[str]] = ([], [])
    for row in beyond_rows(found):
        words = [row[f"than {place}"] for place in PLACES]
        split[words != ["more", "more"]].append(row["measure"])
    return split


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


def numbers(views: Sequence[AttentionView], names: Mapping, sunk: Sequence[Mapping],
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
            "names": dict(names), "sunk": list(sunk), "agreement": dict(found),
            "settled": list(settled), "taken": list(taken)}


def findings(told: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    lead, mean = told["leaders"], told["means"]
    heads = {name: f"head {layer}.{head}" for name, (layer, head, _) in lead.items()}
    names = "; ".join(
        f"{row['model']}, {row['who']}, beside {row['beside']}: {row['verdict']}"
        + f", {row['more on the declaration']}" * bool(row["more on the declaration"])
        for row in declaration_rows(told["names"]) if row["who"] != "all heads")
    ranked = intervals(told["agreement"])
    beyond, rest = (", ".join(each) or "none" for each in beyond_both(told["agreement"]))
    return [
        f"Three numbers over {told['texts']} Python functions, of heads chosen on as many others. "
        f"Entropy: {mean['entropy']:.2f} bits "
        f"on average, the sharpest {heads['entropy']} with {lead['entropy'][2]:.2f}. Previous "
        f"token: {heads['previous']} gives it {lead['previous'][2]:.2f}, the mean is "
        f"{mean['previous']:.2f}. Matching bracket: {heads['bracket']} gives it "
        f"{lead['bracket'][2]:.2f}, the mean is {mean['bracket']:.2f}.",
        f"From a name to its declaration, on texts without a part in the choice: {names}.",
        "Smalltalk's strongest sinks: " + "; ".join(map(sink_line, told["sunk"])) + ".",
        "Rank correlation with ablation: " + ", ".join(
            f"{name} {between(each)}" for name, each in ranked.items()) + ".",
        f"More than both that know only places: {beyond}; not shown of {rest}. "
        + "; ".join(beats(told["agreement"])) + ".",
        f"In at least {told['taken'][2]} of {told['taken'][3]} heads the favourite's weight could "
        f"be zero with the same output; head {told['taken'][0]}'s fell from "
        f"{told['taken'][1]:.2f}."]
