"""The tables and sentences behind chapter 07, each written by the numbers that it shows.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from scratchbook.compression.gptq import Inputs, layer_error
from scratchbook.evaluation.comparing import (
    Interval,
    bootstrap,
    bound_verdict,
    compare_tests,
    mean_and_spread,
    verdict_on,
)
from scratchbook.evaluation.perplexity import Score
from scratchbook.teaching.figures import table
from scratchbook.teaching.results import load_result
from scratchbook.teaching.verdicts import Comparison

Windows = Sequence[Sequence[float]]  # (nats, tokens) of each window of a text
TARGETS = ((10, 0.10), (100, 0.20))  # so many times smaller, for at most this loss
NOT_RECORDED = "not recorded yet: scratchbook run 07_compression --profile full"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean with the half-width of its 95 % interval, such as "2.41 ± 0.03"."""
    mean, half = mean_and_spread(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def change(before: Windows, after: Windows) -> Interval:
    """By what share the bits of a text grew, window by window; 0.1 is a tenth more.

    The interval redraws windows, the same for both models: it says nothing about other texts,
    or about another training run.

    Raises:   ValueError when the two were not measured on the same windows
    Chapter:  chapters/07_compression.ipynb
    """
    if [tokens for _, tokens in before] != [tokens for _, tokens in after]:
        raise ValueError("the windows differ: measure both models on the same text and length")
    ratios = [b / a for (a, _), (b, _) in zip(before, after, strict=True)]
    found = bootstrap(ratios, [nats for nats, _ in before])
    return Interval(*(share - 1 for share in found))


def percent(found: Interval) -> str:
    """An interval of shares as text, such as "+1.2 % (+0.8 to +1.5)"."""
    digits = 1 if abs(found.value) >= 0.0095 else 2
    value, low, high = (round(100 * share, digits) + 0.0 for share in found)  # never -0.0
    return f"{value:+.{digits}f} % ({low:+.{digits}f} to {high:+.{digits}f})"


def more(share: float) -> str:
    """A share as text, such as "+1.2 %" or "+0.03 %"."""
    digits = 1 if abs(share) >= 0.0095 else 2
    return f"{round(100 * share, digits) + 0.0:+.{digits}f} %"


def part_sizes(model: nn.Module) -> list[dict[str, object]]:
    """Where a model's weights are: a row for each kind of part; what is tied counts once."""
    kinds = {"token_embedding": "table of token vectors", "lm_head": "head",
             "attention.": "attention", "feedforward.": "feed-forward parts"}
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind = next((said for key, said in kinds.items() if key in name), "norms")
        counts[kind] = counts.get(kind, 0) + parameter.numel()
    total = sum(counts.values())
    return [{"part": kind, "weights": count, "share": f"{count / total:.0%}"}
            for kind, count in sorted(counts.items(), key=lambda item: -item[1])]


def layer_errors(model: nn.Module, small: nn.Module, inputs: Mapping[str, Inputs]) -> float:
    """How far the outputs of the rounded layers move, the mean over all layers.

    Both models are asked about the same inputs, those of the model before rounding.
    """
    errors = []
    for name, seen in inputs.items():
        rounded, layer = small.get_submodule(name), model.get_submodule(name)
        weight = rounded.dequantize()
        if rounded.input_scale is not None:  # AWQ: the input is multiplied by it
            weight = weight * rounded.input_scale
        errors.append(layer_error(layer.weight, weight, seen.products))
    return sum(errors) / len(errors)


def loss_of(base: Mapping[str, Any], row: Mapping[str, Any]) -> Interval:
    """The share by which the bits of one row of the pipeline are above those of another."""
    return change(base["windows"], row["windows"])


def target_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each target the smallest loss among the files that are small enough, and the verdict."""
    found = []
    for times, most in TARGETS:
        small = [row for row in rows[1:] if rows[0]["bytes"] >= times * row["bytes"]]
        line = {"target": f"{times} times smaller, at most {most:.0%} more bits"}
        if small:
            best = min(small, key=lambda row: loss_of(rows[0], row).value)
            lost = loss_of(rows[0], best)
            line |= {"best that is small enough": best["name"],
                     "times smaller": f"{rows[0]['bytes'] / best['bytes']:.1f}",
                     "more bits": percent(lost), "verdict": bound_verdict(lost, at_most=most)}
        else:
            least = min(rows[1:], key=lambda row: row["bytes"])
            line |= {"best that is small enough": "none",
                     "times smaller": f"{rows[0]['bytes'] / least['bytes']:.1f} at most",
                     "more bits": "", "verdict": "missed"}
        found.append(line)
    return found


def comparison_rows(runs: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]
                    ) -> list[dict[str, str]]:
    """A row for each pair: bits of both, the difference by seed, the verdict."""
    rows = []
    for one, other in pairs:
        found = Comparison(one, other, runs[one], runs[other], low="better", high="worse")
        rows.append({"this": one, "bits per byte": spread(runs[one]), "against": other,
                     "its bits": spread(runs[other]), "difference": found.gap,
                     "verdict": found.word})
    return rows




def mean_of(values: float | Sequence[float]) -> float:
    """The mean of the numbers by seed, or the only number."""
    return values if isinstance(values, int | float) else sum(values) / len(values)


def windows_of(score: Score) -> list[list[float]]:
    """Nats and tokens of each window, as JSON can hold them."""
    return [[nats, tokens] for nats, tokens in score.windows]


def against(one: str, first: Windows, other: str, second: Windows) -> str:
    """A sentence: how one model reads beside another, on the same windows."""
    found = change(second, first)
    return f"{one} against {other}: {verdict_on(found, 'better', 'worse')}, {percent(found)}"


def rounding_rows(found: Mapping[str, Mapping[str, Any]], base: Windows) -> list[dict[str, object]]:
    """A row for each way to round: error of the layers, bits above float32, beside the nearest."""
    rows = []
    for name, entry in found.items():
        gap = change(found["nearest"]["windows"], entry["windows"])
        rows.append({"rounding": name, "error of a layer's output": f"{entry['error']:.1%}",
                     "more bits than float32": percent(change(base, entry["windows"])),
                     "than nearest": "" if name == "nearest" else
                     f"{verdict_on(gap, 'better', 'worse')}, {percent(gap)}"})
    return rows


def plain_bytes(model: nn.Module) -> int:
    """The file of a model as it is: every number of every tensor, without the names."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def recorded(name: str) -> dict[str, Any] | None:
    """A part of the recorded full run, or None before there is one."""
    try:
        return load_result("07_compression").numbers.get(name)
    except FileNotFoundError:
        return None


def recorded_speed() -> dict[str, Any] | None:
    """What the bench recorded, or None before it ran."""
    try:
        return load_result("compression_speed").numbers
    except FileNotFoundError:
        return None


def pipeline_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """What each file of the pipeline costs: on the disk, in memory, in time."""
    return [{"model": row["name"], "bytes": row["bytes"],
             "times smaller": f"{rows[0]['bytes'] / row['bytes']:.1f}",
             "more bits": "" if row is rows[0] else percent(loss_of(rows[0], row)),
             "tokens/s": f"{row['tokens_per_second']:,.0f}",
             "first token, p50 / p95": f"{1000 * row['p50']:.1f} / {1000 * row['p95']:.1f} ms",
             "peak memory": f"{row['peak_bytes'] / 1e6:.0f} MB"} for row in rows]


def test_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The share passed of each code test, with its interval, for each model that was asked."""
    asked = [row for row in rows if row.get("tests")]
    names = list(asked[0]["tests"]) if asked else []
    return [{"model": row["name"], **{name.replace("_", " "): _share(row["tests"][name])
                                      for name in names}} for row in asked]


def test_changes(before: Mapping[str, Any], after: Mapping[str, Any], name: str
                 ) -> list[dict[str, str]]:
    """A row for each code test: the shares of both, the change on the same prompts, a verdict."""
    return [{"test": test.replace("_", " "), "float32": _share(before[test]),
             name: _share(after[test]),
             "change": f"{found.value:+.0%} ({found.low:+.0%} to {found.high:+.0%})",
             "verdict": verdict_on(found, "worse", "better")}
            for test, found in compare_tests(before, after).items()]


def _share(test: Mapping[str, float]) -> str:
    return f"{test['share']:.0%} ({test['low']:.0%} to {test['high']:.0%})"


def candidates(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that the page made smaller: by how much, at what loss, and what it asked for."""
    base, found = numbers["base"], []
    for kind, row in numbers["heat"].items():
        for group, lost in row.items():
            found.append({"name": f"{kind}, scale for {group_name(group)}", "lost": lost,
                          "times": base["bytes"] / numbers["sizes"][f"{kind}, {group}"],
                          "needs": "nothing"})
    for name, entry in numbers["rounding"].items():
        if name != "nearest":
            lost = change(base["windows"], entry["windows"]).value
            found.append({"name": f"int4, scale for a row, {name}", "lost": lost,
                          "times": base["bytes"] / numbers["sizes"]["int4, channel"],
                          "needs": "a few windows of text"})
    for row in (numbers["pipeline"] or {"rows": []})["rows"][1:]:
        first = numbers["pipeline"]["rows"][0]
        found.append({"name": row["name"], "lost": loss_of(first, row).value,
                      "times": first["bytes"] / row["bytes"], "needs": row["needs"]})
    return found


def group_name(group: str) -> str:
    """What shares a scale, in words: "a matrix", "a row", "32 weights"."""
    return {"tensor": "a matrix", "channel": "a row"}.get(group, f"{group} weights")


def decision_rows(numbers: Mapping[str, Any], wanted: Sequence[float] = (3.5, 5, 7, 10, 50, 100)
                  ) -> list[dict[str, object]]:
    """For each size that may be wanted, what is small enough and loses least."""
    found, rows = candidates(numbers), []
    for times in wanted:
        small = [each for each in found if each["times"] >= times]
        best = min(small, key=lambda each: each["lost"], default=None)
        rows.append({"wanted": f"{times:g} times smaller",
                     "take": best["name"] if best else "nothing on this page is that small",
                     "times smaller": f"{best['times']:.1f}" if best else "",
                     "more bits": more(best["lost"]) if best else "",
                     "asks for": best["needs"] if best else ""})
    return rows


def findings(numbers: Mapping[str, Any]) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    heat = numbers["heat"]
    lines = ["More bits per byte than in float32: " + "; ".join(
        f"{kind} {more(row['tensor'])} with a scale for each matrix, {more(row['32'])} for 32"
        for kind, row in heat.items()) + "."]
    nearest = numbers["rounding"]["nearest"]["windows"]
    lines.append("int4 with a scale for each row, beside the nearest code: " + "; ".join(
        f"{name} {verdict_on(gap, 'better', 'worse')} ({percent(gap)})"
        for name, entry in numbers["rounding"].items() if name != "nearest"
        for gap in [change(nearest, entry["windows"])]) + ".")
    words = [row["verdict"] for row in test_changes(*numbers["tests"], "int4")]
    lines.append("The code tests after int4 with a scale for each row: " + ", ".join(
        f"{words.count(word)} {word}" for word in dict.fromkeys(words)) + ".")
    qat = numbers["qat"]["bits"]
    lines.append(_told(qat, "QAT", "trained on, then rounded"))
    taught = numbers["distillation"]
    lines += [_told(taught["bits"], *pair) for pair in taught["pairs"]]
    rows = (numbers["pipeline"] or {"rows": []})["rows"]
    lines += [f"{row['target']}: {row['verdict']} ({row['best that is small enough']}, "
              f"{row['times smaller']} times smaller, {row['more bits']})."
              for row in (target_rows(rows) if rows else [])]
    return lines


def _told(runs: Mapping[str, Sequence[float]], one: str, other: str) -> str:
    return str(Comparison(one, other, runs[one], runs[other], "bits per byte", "better",
                          "worse")) + "."


def summary_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Those lines of the Summary that hold a result of this run."""
    nearest = numbers["rounding"]["nearest"]["windows"]
    words = {name: verdict_on(change(nearest, entry["windows"]), "better", "worse")
             for name, entry in numbers["rounding"].items() if name != "nearest"}
    taught = numbers["distillation"]
    pairs = [Comparison(one, other, taught["bits"][one], taught["bits"][other], low="better",
                        high="worse") for one, other in taught["pairs"]]
    return ["Beside rounding to the nearest code: "
            + ", ".join(f"{name} {word}" for name, word in words.items()) + ".",
            "Beside their controls: " + ", ".join(
                f"{pair.name} {pair.word}" for pair in pairs) + "."]


def speed_rows(numbers: Mapping[str, Any]) -> list[dict[str, object]]:
    """What the bench measured, a row for each model and engine."""
    return list(numbers["rows"])


def show_students(taught: Mapping[str, Any], whose: str) -> None:
    """Two tables: each way to teach beside its control, and how like the teacher they answer."""
    seeds = len(next(iter(taught["bits"].values())))
    head = (f"{whose}, {seeds} seeds: students of {taught['parameters']:,} parameters, "
            f"{taught['steps']} steps; progressive: "
            f"{' and '.join(map(str, taught['layers']))} layers, {taught['progressive steps']} "
            f"steps each; the teacher {taught['teacher']:.3f} bits per byte")
    table(comparison_rows(taught["bits"], taught["pairs"]), head)
    table([{"student": way, "chooses as the teacher": spread(taught["agreement"][way]),
            "divergence from it, nats": spread(taught["kl"][way])} for way in taught["bits"]],
          f"{whose}: share of places with the same likeliest token, and the mean divergence")
