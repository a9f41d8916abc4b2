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


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean with the half-width of its 95 % interval, such as "2.41 ± 0.03", in one piece."""
    mean, half = mean_and_spread(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else
                                   f"\u00a0±\u00a0{half:.{digits}f}")


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


def seed_rows(runs: Mapping[str, Sequence[float]]) -> list[dict[str, str]]:
    """Bits per byte by seed, a row for each way: pairs are read down a column."""
    return [{"way": way, **{f"seed {number}": f"{value:.4f}"
                            for number, value in enumerate(values)}}
            for way, values in runs.items()]


def rate_rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Which learning rate each way took, and whether there was one beyond it."""
    def note(way: str) -> str:
        if way not in found["tried"]:
            return "that of soft labels" if found["tried"] else "given"
        edge = found["edge"].get(way)
        return "between others" if edge is None else f"the {edge} that was tried"

    return [{"way": way, "learning rate": f"{rate:g}", "which is": note(way)}
            for way, rate in found["rates"].items()]


def group_name(group: str) -> str:
    """What shares a scale, in words: "a matrix", "a row", "32 weights"."""
    return {"tensor": "a matrix", "channel": "a row"}.get(group, f"{group} weights")


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


def recorded() -> dict[str, Any] | None:
    """The numbers of the recorded full run, or None before there is one that this page made."""
    try:
        numbers = load_result("07_compression").numbers
    except FileNotFoundError:
        return None
    return numbers if "text" in numbers else None  # an older page judged on other text


def speed_targets(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each target of the bench with its ratio, the interval over rounds, and the verdict."""
    return [f"{each['model']}: {each['target']}: {each['times']:.2f} "
            f"({each['low']:.2f} to {each['high']:.2f}), {each['verdict']}" for each in targets]


def pipeline_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """What each file of the pipeline weighs and loses, and how much text it was trained on."""
    return [{"model": row["name"], "bytes": row["bytes"],
             "times smaller": f"{rows[0]['bytes'] / row['bytes']:.1f}",
             "more bits": "" if row is rows[0] else percent(loss_of(rows[0], row)),
             "tokens trained": f"{row['tokens']:,}"} for row in rows]


def speed_of_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Speed, wait and memory of each file of the pipeline."""
    return [{"model": row["name"], "tokens/s": f"{row['tokens_per_second']:,.0f}",
             "of float32": f"{row['speed_ratio']:.2f}",
             "first token, ms: p50 / p95": f"{1000 * row['p50']:.0f} / {1000 * row['p95']:.0f}",
             "peak with torch": f"{row['peak_bytes'] / 1e6:.0f} MB",
             "with numpy alone": f"{row['reader_peak_bytes'] / 1e6:.0f} MB"
             if row["reader_peak_bytes"] else "not read"} for row in rows]


def can_fall(tests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The code tests of which the model passes anything: the others cannot become worse."""
    return [name for name, test in tests.items() if test["share"] > 0]


def test_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The share passed of each code test that the first row passes at all, with its interval."""
    asked = [row for row in rows if row.get("tests")]
    names = can_fall(asked[0]["tests"]) if asked else []
    return [{"model": row["name"], **{name.replace("_", " "): _share(row["tests"][name])
                                      for name in names}} for row in asked]


def test_changes(before: Mapping[str, Any], after: Mapping[str, Any], name: str
                 ) -> list[dict[str, str]]:
    """A row for each test that can fall: both shares, the change on the same prompts, a verdict."""
    found = compare_tests(before, after)
    return [{"test": test.replace("_", " "), "float32": _share(before[test]),
             name: _share(after[test]),
             "change": f"{gap.value:+.0%} ({gap.low:+.0%} to {gap.high:+.0%})",
             "verdict": verdict_on(gap, "worse", "better")}
            for test, gap in found.items() if test in can_fall(before)]


def _share(test: Mapping[str, float]) -> str:
    return f"{test['share']:.0%} ({test['low']:.0%} to {test['high']:.0%})"


def show_rounded(found: Mapping[str, Any], whose: str) -> None:
    """Training with the rounding in place: the verdicts, the pairs by seed, the rates."""
    bits = found["bits"]
    pairs = [("QAT", "trained on, then rounded"), ("trained on, then rounded", "rounded"),
             ("QAT", "rounded")]
    table(comparison_rows(bits, pairs),
          f"{whose}: {found['kind']}, {found['steps']} steps, {len(bits['QAT'])} seeds; in "
          f"float32, before, {found['whole']:.3f} bits per byte; judged on {found['judged']:,} "
          f"tokens in windows of {found['seq_len']}")
    table(seed_rows(bits), f"{whose}: bits per byte by seed")
    if found["tried"]:
        table(rate_rows(found), f"{whose}: the learning rate of each way, chosen on other text")


def show_students(taught: Mapping[str, Any], whose: str) -> None:
    """Three tables: each way beside its control, how like the teacher they answer, their rates."""
    seeds = len(next(iter(taught["bits"].values())))
    head = (f"{whose}, {seeds} seeds: students of {taught['parameters']:,} parameters, "
            f"{taught['steps']} steps; progressive: "
            f"{' and '.join(map(str, taught['layers']))} layers, {taught['progressive steps']} "
            f"steps each; the teacher {taught['teacher']:.3f} bits per byte; judged on "
            f"{taught['judged']:,} tokens in windows of {taught['seq_len']}")
    table(comparison_rows(taught["bits"], taught["pairs"]), head)
    table([{"student": way, "chooses as the teacher": spread(taught["agreement"][way]),
            "divergence from it, nats": spread(taught["kl"][way]),
            "tokens read": f"{taught['tokens'][way]:,}",
            "CPU seconds": spread(taught["seconds"][way], 0)} for way in taught["bits"]],
          f"{whose}: share of places with the same likeliest token, the mean divergence, "
          "and what a student was given")
    if taught["tried"]:
        table(rate_rows(taught), f"{whose}: the learning rate of each way, chosen on other text")
