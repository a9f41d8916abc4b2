"""The verdicts of chapter 07: Summary, Insights and the last tables take them from here.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.companions.compression_tables import (
    change,
    group_name,
    loss_of,
    mean_of,
    more,
    percent,
    spread,
    target_rows,
    test_changes,
)
from scratchbook.evaluation.comparing import Interval, bound_verdict, verdict_on
from scratchbook.teaching.figures import table
from scratchbook.teaching.verdicts import Comparison

MEMORY, SPEED, FASTER, INT8_FASTER = 64e6, 30, 50, 2  # bytes, tokens/s, times, times
EQUAL_SCOPES = (("wanda", "magnitude, per row"), ("wanda, per layer", "magnitude"))
HALF = "0.5"


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
    return [rounding_line(numbers), distillation_line(numbers), *goal_lines(numbers)[:2]]


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
    return "Students: " + "; ".join(told(taught["bits"], *pair)
                                    for pair in taught["pairs"]) + "."


def sparsity_line(found: Mapping[str, Any]) -> str:
    """Wanda beside magnitude at half of the weights, compared within the same rows or layers."""
    at_half = {name: curve[HALF] for name, curve in found["curves"].items() if HALF in curve}
    start = "Half of the weights zero, untrained since: "
    if len(found["seeds"]) < 3:
        return start + ", ".join(f"{name} {mean_of(at_half[name]):.3f}"
                                 for pair in EQUAL_SCOPES for name in pair) + (
            " bits per byte (one seed: no verdict).")
    return start + "; ".join(told(at_half, *pair) for pair in EQUAL_SCOPES) + "."


def sparsity_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row for each run and pair of scores: bits per byte at half of the weights, the verdict."""
    rows = []
    for name, found in runs.items():
        for one, other in EQUAL_SCOPES:
            bits = [found["curves"][score][HALF] for score in (one, other)]
            word = (Comparison(one, other, *bits, low="better", high="worse").word
                    if len(bits[0]) > 2 else "one seed: no verdict")
            rows.append({"run": name, "score": one, "its bits": spread(bits[0]), "against": other,
                         "bits": spread(bits[1]), "verdict": word})
    return rows


def show_sparsity(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of `sparsity_rows`, and on how much text each run was judged."""
    table(sparsity_rows(runs), "Half of the weights zero, untrained since, bits per byte; judged: "
          + ", ".join(f"{name} {found['judged']:,} tokens in windows of {found['seq_len']}"
                      for name, found in runs.items()))


def goal_lines(numbers: Mapping[str, Any]) -> list[str]:
    """A sentence for each target; none before the pipeline ran."""
    rows = (numbers["pipeline"] or {"rows": []})["rows"]
    return [f"Target, {row['target']}: {row['verdict']} ({row['nearest']}, {row['measured']})."
            for row in (goal_rows(rows) if rows else [])]


def told(runs: Mapping[str, Sequence[float]], one: str, other: str) -> str:
    """How one way did beside another, in bits per byte, without the full stop."""
    return str(Comparison(one, other, runs[one], runs[other], "bits per byte", "better", "worse"))
