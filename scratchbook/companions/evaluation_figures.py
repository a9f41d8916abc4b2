"""The drawing behind chapter 06c and `scratchbook eval`: each returns a figure and its alt text.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from scratchbook.evaluation.comparing import Interval, bootstrap, compare_tests, verdict_on
from scratchbook.evaluation.perplexity import Score
from scratchbook.teaching.figures import INK, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("Perplexity", "Test scores", "Generation quality", "Overall")


def plot_panels(results: Mapping[str, Mapping[str, Any]]) -> tuple[Figure, str]:
    """Evaluations of the same tests side by side: four panels, each bar with its 95 % interval."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.2), constrained_layout=True)
    rows = {name: _panels(result) for name, result in results.items()}
    told = []
    for ax, title in zip(axes.flat, PANELS, strict=True):
        _bars(ax, {name: found[title] for name, found in rows.items()})
        ax.set_title(title)
        if title == "Perplexity":
            ax.set(yscale="log", ylim=(1, None), ylabel="per token, log scale")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        else:
            ax.set(ylim=(0, 1.05), ylabel="share")
        told += [f"{title}, {name}: " + ", ".join(f"{label} {bar.value:.2f}"
                                                  for label, bar in found[title].items())
                 for name, found in rows.items()]
    axes[0, 0].legend()
    return figure, ". ".join(told) + "."


def _panels(result: Mapping[str, Any]) -> dict[str, dict[str, Interval]]:
    tests = {name: Interval(test["share"], test["low"], test["high"])
             for name, test in result.get("tests", {}).items()}
    found = {name: Interval(**s) for name, s in result.get("signals", {}).items()}
    good = {name: found[name] for name in ("spacing", "known_words") if name in found}
    good |= {label: Interval(*(1 - found[name][i] for i in (0, 2, 1)))
             for name, label in (("syntax_errors", "syntax"), ("loops", "no loops"))
             if name in found}
    outcomes = [float(o) for test in result.get("tests", {}).values() for o in test["outcomes"]]
    overall = {"tests": bootstrap(outcomes)} if outcomes else {}
    if good:
        overall["generation"] = Interval(*(sum(bar[i] for bar in good.values()) / len(good)
                                           for i in range(3)))
    return {"Perplexity": {name: Interval(t["perplexity"], t["low"], t["high"])
                           for name, t in result["texts"].items()},
            "Test scores": tests, "Generation quality": good, "Overall": overall}


def _bars(ax: Axes, groups: Mapping[str, Mapping[str, Interval]]) -> None:
    labels = list(dict.fromkeys(label for bars in groups.values() for label in bars))
    width = 0.8 / len(groups)
    for place, (colour, (name, bars)) in enumerate(zip(palette(), groups.items(), strict=False)):
        known = [i for i, label in enumerate(labels) if label in bars]
        values = [bars[labels[i]] for i in known]
        places = [i + (place - (len(groups) - 1) / 2) * width for i in known]
        errors = [[max(v.value - v.low, 0) for v in values],
                  [max(v.high - v.value, 0) for v in values]]
        ax.bar(places, [v.value for v in values], width * 0.9, color=colour, label=name)
        ax.errorbar(places, [v.value for v in values], errors, fmt="none", ecolor=INK, lw=1,
                    capsize=2)
    slanted = {"rotation": 25, "ha": "right"} if len(labels) > 3 else {}
    ax.set_xticks(range(len(labels)), [label.replace("_", " ") for label in labels], fontsize=8)
    for label in ax.get_xticklabels():
        label.set(**slanted)


def plot_tests(results: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str]
               ) -> tuple[Figure, str]:
    """The share passed of each test, for models and controls, with Wilson intervals."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.2, 3.6))
    groups = {who: {name: Interval(*(tests[name][key] for key in ("share", "low", "high")))
                    for name in names} for who, tests in results.items()}
    _bars(ax, groups)
    ax.set(ylim=(0, 1), ylabel="share passed")
    ax.legend(ncols=len(groups), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8,
              columnspacing=1, handlelength=1.2)
    return figure, "Share passed. " + "; ".join(
        f"{who}: " + ", ".join(f"{name} {bar.value:.2f}" for name, bar in bars.items())
        for who, bars in groups.items()) + "."


def plot_tradeoff(points: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """Known words against different words, one point for each way to choose."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5.6, 3.8))
    kinds = list(dict.fromkeys(point["kind"] for point in points))
    for marker, colour, kind in zip("os^Dv", palette(), kinds, strict=False):
        mine = [point for point in points if point["kind"] == kind]
        ax.plot([p["distinct"] for p in mine], [p["known words"] for p in mine], marker + "-",
                color=colour, lw=1, label=kind)
        below = {"xytext": (-5, -5), "ha": "right", "va": "top"}
        above = {"xytext": (5, 4), "ha": "left", "va": "bottom"}
        for label, place in _labels(mine):
            ax.annotate(label, place, fontsize=8, textcoords="offset points", color=colour,
                        **(below if kind == "top-k" else above))
    ax.set(xlabel="different words, share of all", ylabel="known words, share")
    ax.margins(0.12)
    ax.legend()
    return figure, "Known words against different words. " + "; ".join(
        f"{p['kind']} {p['label']}: {p['known words']:.2f} and {p['distinct']:.2f}"
        for p in points) + "."


def _labels(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[float, float]]]:
    """A label for each point; points that lie close together share one."""
    labels: list[tuple[str, tuple[float, float]]] = []
    for point in points:
        place = (point["distinct"], point["known words"])
        if labels and math.dist(place, labels[-1][1]) < 0.05:
            labels[-1] = (f"{labels[-1][0]}, {point['label']}", labels[-1][1])
        else:
            labels.append((point["label"], place))
    return labels


def plot_checkpoints(rows: Sequence[Mapping[str, float]]) -> tuple[Figure, str]:
    """Bits per byte and shares of tests over the steps of one run."""
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(5.6, 5.4), constrained_layout=True,
                                         sharex=True)
    steps = [row["step"] for row in rows]
    top.plot(steps, [row["bits per byte"] for row in rows], "o-", color=palette()[0], ms=4)
    top.set(ylabel="bits per byte, held-out code")
    names = [name for name in rows[0] if name not in ("step", "bits per byte")]
    for marker, colour, name in zip("os^Dv", palette()[1:], names, strict=False):
        shares = [row[name] for row in rows]
        bottom.plot(steps, shares, marker + "-", color=colour, ms=4, label=name)
    bottom.set(xlabel="step", ylabel="share", ylim=(-0.03, 1))
    bottom.legend(fontsize=8)
    last = rows[-1]
    return figure, (f"{len(rows)} checkpoints, step {steps[0]:.0f} to {steps[-1]:.0f}. Bits per "
                    f"byte {rows[0]['bits per byte']:.2f} to {last['bits per byte']:.2f}; at the "
                    "end " + ", ".join(f"{name} {last[name]:.2f}" for name in names) + ".")


def sampler_data(model: torch.nn.Module, contexts: Mapping[str, str]) -> dict[str, Any]:
    """A byte model's next scores after each text, for the living figure `sampler`."""
    tokens = [chr(i) if 32 <= i < 127 or i in (9, 10) else f"{i:02x}" for i in range(256)]
    rows = []
    for name, text in contexts.items():
        with torch.no_grad():
            logits = model(torch.tensor([list(text.encode("utf-8"))]))[0, -1].float()
        scores = (logits - logits.max()).tolist()
        rows.append({"name": name, "text": text, "logits": [round(x, 2) for x in scores]})
    return {"tokens": tokens, "contexts": rows}


def sampler_still(data: Mapping[str, Any]) -> str:
    """What stands where scripts are off: the likeliest tokens after each text, as a table."""
    body = ""
    for context in data["contexts"]:
        probs = torch.tensor(context["logits"]).softmax(0)
        best = probs.topk(4)
        cells = ", ".join(f"{data['tokens'][i]!r} {p:.0%}" for p, i in zip(
            best.values.tolist(), best.indices.tolist(), strict=True))
        body += (f"<tr><th scope='row'><code>{html.escape(context['text'][-24:])}</code></th>"
                 f"<td>{html.escape(cells)}</td></tr>")
    return f"<table><caption>The likeliest next characters</caption>{body}</table>"


def per_byte(score: Score) -> float | str:
    """Bits per byte, or a word where the tokens do not spell the text."""
    return score.bits_per_byte if score.num_bytes else "not the text"


def changes(reports: Mapping[str, Mapping]) -> dict[str, list[str]]:
    """The tests by how the trained model's share compares with v0's, prompt by prompt."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "no clear difference": []}
    for name, change in compare_tests(reports["v0"]["tests"], reports["trained"]["tests"]).items():
        found[verdict_on(change, "worse", "better")].append(name)
    return found


def summary_lines(numbers: Mapping) -> list[str]:
    """The line of the Summary that holds a result of this run."""
    return ["Trained against v0, one run of each, test by test: " + "; ".join(
        f"{word} at {', '.join(names)}" for word, names in changes(numbers["reports"]).items()
        if names) + "."]


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    family = {row["tokenizer"]: row for row in numbers["family"]
              if not isinstance(row["bits per byte"], str)}
    perplexities = [row["perplexity"] for row in family.values()]

    def share(who: str, name: str = "brackets") -> str:
        passed, total = numbers["contest"][who][name]
        return f"{passed / total:.0%}"

    careless = numbers["careless"]["only )"]["value"]
    return [f"Held-out code costs {family['bytes']['bits per byte']:.2f} bits per byte; "
            f"perplexities per token run from {min(perplexities):.1f} to {max(perplexities):.0f} "
            "for one architecture and the same bytes.",
            f"Brackets: trained {share('trained')}, 6-gram {share('6-gram')}, `)` alone "
            f"{share('only )')}; on careless prompts `)` alone passes {careless:.0%}.",
            *summary_lines(numbers)]
