"""The verdicts of chapter 07: Summary, Insights and the last tables take them from here.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scratchbook.companions.compression_tables import (
    TARGETS,
    can_fall,
    change,
    group_name,
    loss_of,
    mean_of,
    more,
    percent,
    pipeline_rows,
    speed_of_rows,
    spread,
    target_rows,
    test_changes,
    test_rows,
)
from scratchbook.compression import quantize
from scratchbook.compression.measuring import disk_bytes
from scratchbook.compression.squeezing import save_squeezed
from scratchbook.evaluation.comparing import Interval, bound_verdict, verdict_on
from scratchbook.model import DecoderLM
from scratchbook.teaching.figures import table
from scratchbook.teaching.verdicts import Comparison

MEMORY, SPEED, FASTER, INT8_FASTER = 64e6, 30, 50, 2  # bytes, tokens/s, times, times
SCOPES = (("wanda", "magnitude, per row"), ("wanda, per layer", "magnitude"),  # equal ones
          ("wanda", "magnitude"))  # as the paper has it: within a row, within a layer


def candidates(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that the page made smaller: by how much, at what loss, and what it asked for.

    All of it was judged on the same windows, and all sizes are those of files.
    """
    base, found = numbers["base"], []
    for kind, row in numbers["heat"].items():
        for group, lost in row.items():
            found.append({"name": f"{kind}, scale for {group_name(group)}", "lost": lost,
                          "bytes": numbers["sizes"][f"{kind}, {group}"], "needs": "nothing"})
    for name, entry in numbers["rounding"].items():
        if name != "nearest":
            found.append({"name": f"int4, scale for a row, {name}", "bytes": entry["bytes"],
                          "lost": change(base["windows"], entry["windows"]).value,
                          "needs": "a few windows of text" if name in ("AWQ", "GPTQ")
                          else "nothing"})
    rows = (numbers["pipeline"] or {"rows": []})["rows"]
    found += [{"name": row["name"], "lost": loss_of(rows[0], row).value, "bytes": row["bytes"],
               "needs": row["needs"]} for row in rows[1:]]
    return [each | {"times": base["bytes"] / each["bytes"]} for each in found]


def decision_rows(numbers: Mapping[str, Any], wanted: Sequence[float] = (3.5, 5, 7, 10, 50, 100)
                  ) -> list[dict[str, object]]:
    """For each size that may be wanted, what is small enough and loses least.

    A row says when even that loses more than the next target allows.
    """
    found, rows = candidates(numbers), []
    for times in wanted:
        small = [each for each in found if each["times"] >= times]
        best = min(small, key=lambda each: each["lost"], default=None)
        allowed = next((most for far, most in TARGETS if far >= times), 0)
        take = best["name"] if best else "nothing on this page is that small"
        if best and best["lost"] > allowed:
            take = f"nothing within the target; smallest loss measured: {take}"
        rows.append({"wanted": f"{times:g} times smaller", "take": take,
                     "times smaller": f"{best['times']:.1f}" if best else "",
                     "more bits": more(best["lost"]) if best else "",
                     "asks for": best["needs"] if best else ""})
    return rows


def goal_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Every target that was set before the pipeline ran, what was measured, met or missed.

    Losses have an interval over windows; memory was measured once, speeds are the middle of
    three rounds: their verdicts are those of one number.
    """
    found = [{"target": row["target"], "nearest": row["best that is small enough"],
              "measured": f"{row['times smaller']} times smaller"
              + (f", {row['more bits']}" if row["more bits"] else ""),
              "verdict": row["verdict"]} for row in target_rows(rows)]

    def add(target: str, row: Mapping[str, Any], key: str, unit: str, scale: float = 1,
            **bound: float) -> None:
        value = row[key]
        found.append({"target": target, "nearest": row["name"],
                      "measured": f"{value / scale:.{1 if value / scale < 10 else 0}f} {unit}",
                      "verdict": bound_verdict(Interval(value, value, value), **bound)})

    small, read = rows[1:], [row for row in rows[1:] if row["reader_peak_bytes"]]
    int8 = next(row for row in rows if row["name"].startswith("int8"))
    least = min(small, key=lambda row: row["bytes"])
    add("64 MB at most in a fresh process, with torch", least, "peak_bytes", "MB", 1e6,
        at_most=MEMORY)
    if read:
        add("64 MB at most in a fresh process, by numpy alone",
            min(read, key=lambda row: row["bytes"]), "reader_peak_bytes", "MB", 1e6,
            at_most=MEMORY)
    add("each file writes 30 tokens a second", min(small, key=lambda row: row["tokens_per_second"]),
        "tokens_per_second", "tokens/s", at_least=SPEED)
    add("int8 writes twice as fast as float32", int8, "speed_ratio", "times", at_least=INT8_FASTER)
    add("one writes 50 times as fast as float32", max(small, key=lambda row: row["speed_ratio"]),
        "speed_ratio", "times", at_least=FASTER)
    return found


def findings(numbers: Mapping[str, Any]) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    words = [row["verdict"] for row in test_changes(*numbers["tests"], "int4")]
    qat = numbers["qat"]["bits"]
    return ["More bits per byte than in float32: " + "; ".join(
                f"{kind} {more(row['tensor'])} with a scale for each matrix, {more(row['32'])} "
                "for 32 weights" for kind, row in numbers["heat"].items()) + ".",
            rounding_line(numbers),
            "The code tests after int4 with a scale for each row: " + ", ".join(
                f"{words.count(word)} {word}" for word in dict.fromkeys(words)) + ".",
            f"{told(qat, 'QAT', 'trained on, then rounded')}; "
            f"{told(qat, 'trained on, then rounded', 'rounded')}; "
            f"{told(qat, 'QAT', 'rounded')}.",
            sparsity_line(numbers["sparsity"]), distillation_line(numbers), *goal_lines(numbers)]


def summary_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Those sentences of `findings` that the Summary repeats."""
    return [rounding_line(numbers), distillation_line(numbers), *goal_lines(numbers)]


def rounding_line(numbers: Mapping[str, Any]) -> str:
    """The ways to round to int4, each beside the nearest code, and GPTQ beside a zero point."""
    found = {name: entry["windows"] for name, entry in numbers["rounding"].items()}
    gaps = {name: change(found["nearest"], windows)
            for name, windows in found.items() if name != "nearest"}
    line = "int4 with a scale for each row, beside the nearest code: " + "; ".join(
        f"{name} {verdict_on(gap, 'better', 'worse')} ({percent(gap)})"
        for name, gap in gaps.items())
    rival = "nearest, zero point"
    if rival in found and "GPTQ" in found:
        gap = change(found[rival], found["GPTQ"])
        line += f"; GPTQ beside {rival}: {verdict_on(gap, 'better', 'worse')} ({percent(gap)})"
    return line + "."


def distillation_line(numbers: Mapping[str, Any]) -> str:
    """Every way to teach beside its control."""
    taught = numbers["distillation"]
    return "Students, at equal steps where nothing else is said: " + "; ".join(
        told(taught["bits"], *pair) for pair in taught["pairs"]) + "."


def sparsity_line(found: Mapping[str, Any]) -> str:
    """Wanda beside magnitude at each share of the weights, in equal scopes and as in the paper."""
    lines = []
    for share, curves in by_share(found["curves"]).items():
        start = f"{float(share):.0%} of the weights zero, untrained since, bits per byte: "
        if len(found["seeds"]) < 3:
            names = dict.fromkeys(name for pair in SCOPES for name in pair)
            lines.append(start + ", ".join(f"{name} {mean_of(curves[name]):.3f}" for name in names)
                         + " (one seed: no verdict).")
        else:
            lines.append(start + "; ".join(str(Comparison(
                *pair, *(curves[name] for name in pair), low="better", high="worse"))
                for pair in SCOPES) + ".")
    return " ".join(lines)


def sparsity_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row for each run, share of the weights and pair of scores: bits per byte, the verdict."""
    rows = []
    for name, found in runs.items():
        for share, curves in by_share(found["curves"]).items():
            for one, other in SCOPES:
                pair = (Comparison(one, other, curves[one], curves[other], low="better",
                                   high="worse") if len(curves[one]) > 2 else None)
                rows.append({"run": name, "zero": f"{float(share):.0%}", "score": one,
                             "its bits": spread(curves[one]), "against": other,
                             "bits": spread(curves[other]), "difference": pair.gap if pair else "",
                             "verdict": pair.word if pair else "one seed: no verdict"})
    return rows


def by_share(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The shares at which all scores of `SCOPES` were measured, and all that was at each."""
    shares = sorted(set.intersection(*(set(curves[name]) for pair in SCOPES for name in pair)),
                    key=float)
    return {share: {name: curve[share] for name, curve in curves.items() if share in curve}
            for share in shares}


def show_sparsity(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of `sparsity_rows`, and on how much text each run was judged."""
    table(sparsity_rows(runs), "Weights zero, untrained since, bits per byte; "
          "seeds draw what Wanda looks at, magnitude has none; judged: "
          + ", ".join(f"{name} {found['judged']:,} tokens in windows of {found['seq_len']}"
                      for name, found in runs.items()))


def goal_lines(numbers: Mapping[str, Any]) -> list[str]:
    """A sentence for each target; none before the pipeline ran."""
    rows = (numbers["pipeline"] or {"rows": []})["rows"]
    return [f"Target, {row['target']}: {row['verdict']} ({row['nearest']}, {row['measured']})."
            for row in (goal_rows(rows) if rows else [])]


def show_pipeline(stacked: Mapping[str, Any], model: DecoderLM, whole: int) -> None:
    """The pipeline's three tables and what to know of them; `whole` are the bytes in float32.

    One more file is made: int4 with a scale for each row, squeezed, beside those with one for a
    matrix.
    """
    rows, alone = stacked["rows"], f"{stacked['empty_peak_bytes'] / 1e6:.0f} MB"
    with tempfile.TemporaryDirectory() as folder:
        by_row = disk_bytes(save_squeezed(quantize(copy.deepcopy(model), "int4", "channel"),
                                          Path(folder) / "rows.safetensors"))
    table(pipeline_rows(rows), "Files of the pipeline")
    table(speed_of_rows(rows), "One thread, in turns, prompts of 32 tokens; \"of float32\" is "
          "the middle of the ratios within each round, which need not equal the quotient of the "
          f"column before; memory of a fresh process (importing torch alone: {alone})")
    table(test_rows(rows), "Code tests of chapter 06c, share passed with its interval")
    print(f"int4 with a scale for each row, squeezed: {whole / by_row:.1f} times smaller.",
          scatter_line(rows), price_line(rows), tests_line(rows), sep="\n")


def tests_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many prompts of the code tests that can fall are passed at first, and ten times smaller.

    The file is the one with the least loss of bits; no interval, for nothing is decided by it.
    """
    small = [row for row in rows[1:] if rows[0]["bytes"] >= 10 * row["bytes"]]
    if not small:
        return "No file is ten times smaller."
    best = min(small, key=lambda row: loss_of(rows[0], row).value)
    names = can_fall(rows[0]["tests"])
    whole, less = (sum(row["tests"][name]["passed"] for name in names) for row in (rows[0], best))
    asked = sum(rows[0]["tests"][name]["total"] for name in names)
    return (f"Prompts of these tests that are passed: {whole / asked:.1%} in float32, "
            f"{less / asked:.1%} in {best['name']}. Whether less than a tenth of them is lost was "
            "not tested.")


def scatter_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far speeds lie apart that differ in little but the scales."""
    alike = [row["speed_ratio"] for row in rows
             if "int4" in row["name"] and row["parameters"] == rows[0]["parameters"]]
    return (f"The {len(alike)} rows of int4 with all layers write {min(alike):.2f} to "
            f"{max(alike):.2f} times as many tokens a second as float32; they compute nearly "
            "alike, so smaller differences mean nothing here.")


def price_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """What int8 costs: bits, speed and the wait for the first token, beside float32."""
    whole, int8 = rows[0], next(row for row in rows if row["name"].startswith("int8"))
    return (f"int8 beside float32: {percent(loss_of(whole, int8))} bits per byte, "
            f"{int8['speed_ratio']:.2f} times as many tokens a second, the first token after "
            f"{1000 * int8['p50']:.0f} ms instead of {1000 * whole['p50']:.0f}.")


def told(runs: Mapping[str, Sequence[float]], one: str, other: str) -> str:
    """How one way did beside another, in bits per byte, without the full stop."""
    return str(Comparison(one, other, runs[one], runs[other], "bits per byte", "better", "worse"))
